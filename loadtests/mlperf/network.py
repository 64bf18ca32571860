"""Many HTTP requests in flight: any thread asks, one thread takes the answers.

LoadGen times a query from when it was to leave until it is told the answer, so what this client adds is counted as the
service's: whoever asks sends from his own thread, and the answers are taken by another that mostly sleeps in ``epoll``.
"""

import select
import socket
import threading
from collections import deque
from contextlib import suppress
from time import monotonic
from typing import Protocol

import httptools

from loadtests.mlperf.served import Address

RECEIVE_BYTES = 262_144
PATIENCE_SECONDS = 30.0
WAKE_SECONDS = 0.05


class LoadgenQuery(Protocol):
    """One request, made when it is sent."""

    def request(self) -> bytes:
        """Return the whole HTTP request."""
        ...

    def answered(self, outcome: str, body: bytes) -> None:
        """Called once: with the status, or with why there is no answer."""
        ...


class LoadgenLink:
    """One connection with at most one question on it; what httptools reads off it."""

    def __init__(self, address: Address) -> None:
        self.question: LoadgenQuery | None = None
        self.since, self.answers, self.is_answering, self.is_lost = monotonic(), 0, False, False
        self.body, self.is_whole, self.keeps = bytearray(), False, False
        self.socket = socket.create_connection((address.host, address.port), timeout=PATIENCE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(None)
        self.parser = httptools.HttpResponseParser(self)

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        self.body += data

    def on_message_complete(self) -> None:
        """The end of the answer."""
        self.is_whole, self.keeps = True, self.parser.should_keep_alive()  # the parser forgets it afterwards

    def feed(self) -> bool:
        """Read what is there; whether the connection still stands."""
        try:
            new = self.socket.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT)
            if new:
                self.is_answering = True
                self.parser.feed_data(new)
        except BlockingIOError:
            return True
        except (OSError, httptools.HttpParserError):
            return False
        return bool(new)

    def shut(self) -> None:
        """End it; only the receiving thread closes, when it sees the end, so that no number is used twice."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)


class Network:
    """Connections to one service, at most ``most`` at a time; what finds none waits in order."""

    def __init__(self, address: Address, most: int) -> None:
        self.address, self.most = address, most
        self.links: dict[int, LoadgenLink] = {}
        self.idle: list[LoadgenLink] = []
        self.waiting: deque[LoadgenQuery] = deque()
        self.lock, self.poll, self.is_over = threading.Lock(), select.epoll(), False
        self.thread = threading.Thread(target=self._receive, name="answers", daemon=True)

    def __enter__(self) -> "Network":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over = True
        self.thread.join()
        for link in self.links.values():
            link.socket.close()
        self.poll.close()

    def ask(self, question: LoadgenQuery) -> None:
        """Send a question now, or when a connection is free."""
        with self.lock:
            link = self.idle.pop() if self.idle else None
            if link is None and len(self.links) >= self.most:
                self.waiting.append(question)
                return
        try:
            self._send(link or self._open(), question)
        except OSError as error:
            question.answered(f"not connected: {error.strerror}", b"")

    def _open(self) -> LoadgenLink:
        link = LoadgenLink(self.address)
        with self.lock:
            self.links[link.socket.fileno()] = link
        self.poll.register(link.socket, select.EPOLLIN)
        return link

    def _send(self, link: LoadgenLink, question: LoadgenQuery) -> None:
        with self.lock:
            is_lost = link.is_lost
            link.question, link.since = question, monotonic()
        if is_lost:  # since it was taken
            self.ask(question)
            return
        try:
            link.socket.sendall(question.request())
        except OSError:
            link.shut()

    def _receive(self) -> None:
        while not self.is_over:
            for number, _ in self.poll.poll(WAKE_SECONDS, 256):
                link = self.links.get(number)
                if link is None:
                    continue
                if not link.feed():
                    self._lose(link, "closed")
                elif link.is_whole:
                    self._finish(link)
            late = monotonic() - PATIENCE_SECONDS
            for link in [link for link in [*self.links.values()] if link.question and link.since < late]:
                self._lose(link, "silent")

    def _finish(self, link: LoadgenLink) -> None:
        question, body, status = link.question, bytes(link.body), link.parser.get_status_code()
        link.question, link.body, link.is_whole, link.is_answering = None, bytearray(), False, False
        link.answers += 1
        if question is not None:
            question.answered(str(status), body)
        if not link.keeps:
            self._lose(link, "")
            return
        with self.lock:
            following = self.waiting.popleft() if self.waiting else None
            if following is None:
                self.idle.append(link)
        if following is not None:
            self._send(link, following)

    def _lose(self, link: LoadgenLink, reason: str) -> None:
        """A connection has ended: its question gets no answer, and who waited for it gets another connection.

        A server may close an idle connection in the moment it is used again, which says nothing about the question; it
        is then asked once more, on a new connection or after another's answer.
        """
        with self.lock:
            if link in self.idle:
                self.idle.remove(link)
            del self.links[link.socket.fileno()]
            link.is_lost, question = True, link.question
            following = self.waiting.popleft() if self.waiting else None
        self.poll.unregister(link.socket)
        link.socket.close()
        if question is not None and reason == "closed" and link.answers and not link.is_answering:
            self.ask(question)
        elif question is not None:
            question.answered(reason, b"")
        if following is not None:
            self.ask(following)
