"""Look after a connection: what is owed on it, when it is read, and when it has waited long enough."""

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from time import monotonic
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from models.errors import HttpError, MalformedRequest
from service.server.context import ServerContext
from service.server.fast_request import FastPathRequest
from service.server.flow_control import PIECE_BYTES, BoundedReader, ReadGate
from service.server.handshake import FIRST_SECONDS
from service.server.prediction import PredictionRoute

MOST_UNANSWERED = 64
MOST_UNANSWERED_BYTES = 2**20
# Some fifty of the shortest requests.
SLICE_BYTES = 2048
# With requests in them that are looked at before others have their turn: two hundred connections that pipelined without
# reading stopped the process for ten seconds.
SLICES_IN_A_TURN = 4


class State(Enum):
    """Describe what becomes of a connection and of the request that is arriving on it.

    ========== ============ ==================================================================================
    from       to           when
    ========== ============ ==================================================================================
    OPEN       ENDING       a request that is the last one is whole; an answer says so; the server stops
    OPEN       REPARSING    the head of a request that asks for an upgrade is whole
    REPARSING  OPEN         its head is read again, without that wish
    ENDING     IGNORING     another request begins
    any        IGNORING     a request is broken, too late or given up; the client has gone
    ========== ============ ==================================================================================

    Nothing leads out of ``IGNORING``; the connection closes when nothing is owed any more.
    """

    OPEN = auto()
    ENDING = auto()
    IGNORING = auto()
    REPARSING = auto()


# A member is looked up three times for every answer; by its class that takes ten times as long (Python 3.11).
OPEN, ENDING, IGNORING, REPARSING = State


class Connection(HttpToolsProtocol):
    """A connection as uvicorn makes it, which owes answers and does not wait for ever.

    Attributes:
        state: Whether it ends when nothing is owed any more, and whether the request that is arriving counts.
        unanswered: Predictions whose answers are owed, oldest first.
        unanswered_bytes: Of their bodies.
        unread_bytes: Of answers not taken by the client at the last sweep, and of those written since.
        header_bytes: Of the headers that are arriving.
        arriving: The prediction whose body is still arriving.
        running: The request that uvicorn is answering, or answered last.
        begun_at: When the request that is still arriving began, on the monotonic clock.
        idle_at: When there was last something to do.
        stuck_at: Since when the client has not read what was written, or the connection waits to close.
        is_paused: Whether it is read on later, because it has just been refused.
        piece_bytes: Read of the request that is arriving, since its last turn.
        turn: Of its body among the long ones; 0 until it is known to be one of them.
        is_pipelining: Whether what uvicorn starts now was asked before the last answer.
        complaint: What is to be said when nothing is owed any more.
        head_without_upgrade: The head of a request that is read again.
    """

    def __init__(
        self, context: ServerContext, routes: dict[bytes, PredictionRoute], watch: Callable[[], None], **uvicorn: Any
    ) -> None:
        super().__init__(**uvicorn)
        self.context, self.gateway, self.routes, self.watch = context, context.gateway, routes, watch
        self.timeout_keep_alive = self.gateway.settings.keep_alive_seconds  # type: ignore[assignment]  # uvicorn: whole ones
        self.state: State = OPEN
        self.unanswered: deque[FastPathRequest] = deque()
        self.unanswered_bytes = self.unread_bytes = self.header_bytes = 0
        self.arriving: FastPathRequest | None = None
        self.running: Any = None
        self.begun_at: float | None = None
        self.stuck_at: float | None = None
        self.idle_at = monotonic()
        self.is_paused = self.is_pipelining = False
        self.complaint: HttpError | None = None
        self.head_without_upgrade = b""
        self.piece_bytes = self.turn = 0
        self.flow: ReadGate

    @property
    def is_ending(self) -> bool:
        """Return whether the connection closes when nothing is owed any more."""
        return self.state is not OPEN and self.state is not REPARSING

    @property
    def is_ignored(self) -> bool:
        """Return whether the request that is arriving does not count."""
        return self.state is not OPEN and self.state is not ENDING

    def end(self) -> None:
        """Take no request but the one that is arriving."""
        if self.state is OPEN:
            self.state = ENDING

    @property
    def is_busy(self) -> bool:
        """Return whether uvicorn owes an answer."""
        return bool(self.pipeline) or (self.cycle is not None and not self.cycle.response_complete)

    @property
    def quiet_since(self) -> float | None:
        """Since when nothing is owed on it and it may make room for another, on the monotonic clock; else ``None``."""
        if self.unanswered or self.is_busy or self.is_paused or self.stuck_at or self.transport.is_closing():
            return None
        return self.idle_at if self.begun_at is None else self.begun_at

    def abort(self) -> None:
        """Make room for another."""
        self.transport.abort()

    @property
    def _is_arriving(self) -> bool:
        """Return whether part of a request is still to come."""
        return self.begun_at is not None or (self.cycle is not None and self.cycle.more_body)

    @property
    def _owes_much(self) -> bool:
        is_long = self.unanswered_bytes >= MOST_UNANSWERED_BYTES
        return is_long or len(self.unanswered) + len(self.pipeline) >= MOST_UNANSWERED

    def time_out(self, patience: float) -> None:
        """End a request that has not arrived within so many seconds."""
        raise NotImplementedError

    def refuse(self, error: HttpError) -> None:
        """Read no more, and say why after the answers that are owed."""
        raise NotImplementedError

    # When it is read.

    def _balance(self) -> None:
        """Read on while few answers are owed and the client reads them; behind uvicorn's answers, as uvicorn says."""
        if self.stuck_at is not None or self.complaint or self.is_paused or self._owes_much:
            self.flow.pause_reading()
        elif self.flow.read_paused and (self.unanswered or not self.is_busy):
            self.begun_at = None if self.begun_at is None else monotonic()
            self.flow.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Look at what has come, a slice at a time: one reading may bring thousands of requests."""
        if self.flow.rest:
            self.flow.rest += data
        elif len(data) <= SLICE_BYTES:
            self._look_at(data)
        else:
            self.flow.rest = data
            self._pour()

    def _pour(self) -> None:
        """Look at what was read, until too much is owed."""
        rest, start, slices = self.flow.rest, 0, 0
        while start < len(rest) and self.flow.is_open and not self.transport.is_closing():
            end, headers = start + self._slice_bytes, self.headers
            self._look_at(rest[start:end])
            start = end
            slices += self.headers is not headers
            if slices == SLICES_IN_A_TURN and self.flow.is_open:
                self.flow.hold()
                self.context.low_priority.add(self.context.low_priority.new_turn(), self.flow.release)
        self.flow.rest = b"" if self.transport.is_closing() else rest[start:]
        self.flow.turn()

    @property
    def _slice_bytes(self) -> int:
        """Many of a body, few where there may be many requests."""
        if self.arriving is not None:
            return min(max(SLICE_BYTES, self.arriving.length), PIECE_BYTES)
        return PIECE_BYTES if self.cycle is not None and self.cycle.more_body else SLICE_BYTES

    def _look_at(self, piece: bytes) -> None:
        """Parse a slice; what follows much of one body waits for its turn."""
        self.piece_bytes += len(piece)
        try:
            self._parse(piece)
        except HttpParserError as error:
            self.refuse(MalformedRequest(f"the request is not valid HTTP: {error}"))
        if self.piece_bytes > PIECE_BYTES and not self.transport.is_closing():
            self.turn = self.turn or self.context.low_priority.new_turn()
            self.piece_bytes = 0
            self.flow.hold()
            self.context.low_priority.add(self.turn, self.flow.release)

    def _ask_again(self) -> None:
        """Keep the head of the request that asked for an upgrade, for ``_parse``."""
        first = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        lines = (b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade")
        self.head_without_upgrade = first + b"".join(lines) + b"\r\n"
        self.state = REPARSING if self.state is OPEN else IGNORING

    def _parse(self, piece: bytes) -> None:
        """Parse a slice; nobody is upgraded, which a server is free to do (RFC 9110, 7.8).

        httptools takes whoever may be upgraded for a request without a body, and the body for another request. Such a
        request is read again, without its wish, by a parser that has never heard of it.
        """
        rest: bytes | memoryview = piece
        while self.state is OPEN or self.state is ENDING:
            try:
                self.parser.feed_data(rest)
            except HttpParserUpgrade as upgrade:
                rest = memoryview(rest)[upgrade.args[0] :]
                self.parser = HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                if self.state is REPARSING:
                    self.state = OPEN
                head, self.head_without_upgrade = self.head_without_upgrade, b""
                self.parser.feed_data(head)
            else:
                return

    def pause(self) -> None:
        """Read on when its turn has come: refusing must not take the time of answering."""
        self.is_paused = True
        self.flow.pause_reading()
        self.context.backoff.add(self)

    def resume(self) -> None:
        """Its turn has come."""
        self.is_paused = False
        if not self.transport.is_closing():
            self._balance()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Look after the connection from now on."""
        super().connection_made(transport)
        transport.set_protocol(BoundedReader(self))
        self.flow, self.idle_at = ReadGate(transport, self._pour), monotonic()
        self.watch()

    def pause_writing(self) -> None:
        """The client does not read: do not read from it either."""
        self.stuck_at = monotonic()
        if not self.is_busy:
            self._balance()
        super().pause_writing()

    def resume_writing(self) -> None:
        """The client reads again."""
        self.stuck_at = None
        super().resume_writing()
        self._balance()

    # How long it waits.

    def sweep(self, now: float) -> None:
        """End what takes too long."""
        patience = self.gateway.settings.body_timeout_seconds
        if self.transport.is_closing():
            self.stuck_at = self.stuck_at or now
        unread, self.unread_bytes = self.unread_bytes, self.transport.get_write_buffer_size()
        if self.stuck_at is not None and self.unread_bytes < unread:
            self.stuck_at = now  # the client has taken something
        if self.stuck_at is not None:
            if now - self.stuck_at > patience:
                self.transport.abort()
        elif self.begun_at is not None:
            if now - self.begun_at > patience and not (self.flow.read_paused or self.flow.is_held):
                self.time_out(patience)
        elif not (self.unanswered or self.is_busy or self.is_paused) and now - self.idle_at > self._idle_seconds:
            self.transport.close()

    @property
    def _idle_seconds(self) -> float:
        """Return how long nothing may happen on it while no request is begun."""
        if self.headers is None:
            return min(FIRST_SECONDS, self.timeout_keep_alive)
        most: float = self.timeout_keep_alive
        return min(self.gateway.settings.body_timeout_seconds, most) if self._is_arriving else most
