"""Whole requests, encoded beforehand, over pooled connections: what a request costs the generator is what it costs.

``FastHttpUser`` builds headers, a response object and a context per request. Here a request is bytes that are ready,
and geventhttpclient's pool and parser do the rest.
"""

import socket
from time import perf_counter
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import gevent.socket
from geventhttpclient.connectionpool import ConnectionPool, SSLConnectionPool
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError, HTTPSocketPoolResponse

# The pool looks at idle sockets by select(), which knows descriptors below 1,024 only.
MOST_CONNECTIONS = 900
BLOCK_BYTES = 65_536
# Below the five seconds after which uvicorn, and so the service, closes an idle connection.
IDLE_SECONDS = 3.0
# Keeps the load out of what the service knows of its callers; it reads the mark from loopback and from keys that may.
LOAD_TEST_HEADER = "x-load-test: 1\r\n"
_DEAD_CONNECTION = (HTTPConnectionClosed, ConnectionResetError, BrokenPipeError)


class Answer(NamedTuple):
    """What came back."""

    status: int
    body: bytes


class _Fresh(ConnectionPool):
    """Connections that do not wait for more to send, none of them idle for so long that the server may close it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._idle_since: dict[int, float] = {}

    def after_connect(self, sock: gevent.socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._idle_since.pop(id(sock), None)  # of one that was closed, whose place in memory this has

    def get_socket(self) -> gevent.socket.socket:
        while True:
            found = super().get_socket()
            since = self._idle_since.pop(id(found), None)
            if since is None or perf_counter() - since < IDLE_SECONDS:
                return found
            self.release_socket(found)

    def return_socket(self, sock: gevent.socket.socket) -> None:
        self._idle_since[id(sock)] = perf_counter()
        super().return_socket(sock)


class _FreshTls(_Fresh, SSLConnectionPool):
    """The same over TLS."""


class Wire:
    """One host, asked over as many connections as there are requests at once.

    Args:
        host: Its address, ``http://127.0.0.1:3000``.
        key: What callers show, if they must show one.
        timeout: Seconds after which an answer is not waited for any longer.
    """

    def __init__(self, host: str, *, key: str = "", timeout: float = 30.0) -> None:
        found = urlsplit(host)
        name, port = found.hostname or "127.0.0.1", found.port or (443 if found.scheme == "https" else 80)
        kind = _FreshTls if found.scheme == "https" else _Fresh
        self._pool = kind(name, port, name, port, size=MOST_CONNECTIONS, network_timeout=timeout)
        authority = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
        self._headers = f"host: {authority}\r\n{LOAD_TEST_HEADER}" + (f"authorization: Bearer {key}\r\n" if key else "")
        self.reconnections = 0

    def request(self, path: str, body: bytes | None = None) -> bytes:
        """A whole request: a GET, or with a body a POST of JSON."""
        if body is None:
            return f"GET {path} HTTP/1.1\r\n{self._headers}\r\n".encode("latin-1")
        head = f"POST {path} HTTP/1.1\r\n{self._headers}content-type: application/json\r\n"
        return f"{head}content-length: {len(body)}\r\n\r\n".encode("latin-1") + body

    def ask(self, request: bytes) -> Answer:
        """The answer to a whole request.

        A server may close an idle connection in the moment it is used again, which says nothing about the request; it
        is then sent once more, and counted.

        Raises:
            OSError: If there is no answer: no connection, none in time, or one that broke.
        """
        try:
            return self._ask(request)
        except _DEAD_CONNECTION:
            self.reconnections += 1
        try:
            return self._ask(request)
        except HTTPParseError as error:
            raise ConnectionResetError(str(error)) from error

    def _ask(self, request: bytes) -> Answer:
        connection = self._pool.get_socket()
        try:
            connection.sendall(request)
        except BaseException:
            self._pool.release_socket(connection)
            raise
        response = HTTPSocketPoolResponse(connection, self._pool, block_size=BLOCK_BYTES, method="POST")
        return Answer(response.get_code(), response.read())

    def close(self) -> None:
        """Close what is idle."""
        self._pool.close()
