"""Answer predictions below ASGI, inside uvicorn's HTTP protocol.

An ASGI call costs a scope, a task and two messages; a view-count answer costs less than that. So a prediction is
matched as soon as its headers are whole, and its answer leaves as one write. Everything else, and any prediction with
something unusual about it (chunks, ``Expect``, a header to be refused), goes to uvicorn and the ASGI application as
ever. ``LECTERN_WIRE=false`` sends predictions the same way; nothing but the speed changes.

What a server owes its connections is kept: answers in the order of the requests, a limit on the body, on the time
that headers and bodies may take and on idle connections, no reading from who does not read, and an answer to what is
under way when the server stops.
"""

import logging
from functools import partial
from time import monotonic
from typing import Any

from models.errors import HeadersTooLarge, HttpError, MethodNotAllowed, Overloaded, RequestTimeout
from service.messages.body_memory import LONG_BODY_BYTES, too_many_bodies_in_flight
from service.messages.headers import host_fault
from service.messages.request_id import new_request_id
from service.messages.response import CLOSE, Response, make_response
from service.server.connection import ENDING, IGNORING, MOST_UNANSWERED_BYTES, OPEN, Connection
from service.server.fast_request import FastPathRequest, match_fast_path

# Of headers, or of a body in chunks all that is no body: trailers, extensions, sizes.
MOST_HEADER_BYTES = 2**16
# Nginx, Apache and their like send and take about a hundred; of the shortest ones 64 KiB would take 1.4 MB of memory.
MOST_HEADERS = 256
# What a chunk may take beside its content: two ends of line and a size.
CHUNK_BYTES = 16


logger = logging.getLogger("lectern.wire")


class _DiscardedTrailers(list[tuple[bytes, bytes]]):
    """Takes trailers, which nobody asks for: they must not become headers of a request that was let in without them."""

    def append(self, _: tuple[bytes, bytes]) -> None:
        """Forget it."""


class FastPathProtocol(Connection):
    """A connection on which predictions are matched and answered."""

    # What the parser finds.

    def _look_at(self, piece: bytes) -> None:
        """Part of a request, or many requests; headers and trailers that never end are not collected."""
        headers = self.headers
        super()._look_at(piece)
        if self.begun_at is not None and len(self.headers) > MOST_HEADERS and not self.is_ignored:
            self.refuse(HeadersTooLarge(f"a request may have {MOST_HEADERS} headers"))
            return
        if self.headers is headers and self._is_arriving and not (self.arriving or self.is_ignored):
            self.header_bytes = max(0, self.header_bytes + len(piece))  # ``on_body`` has taken off what was body
            if self.header_bytes > MOST_HEADER_BYTES:
                self.refuse(HeadersTooLarge(f"headers and trailers may have {MOST_HEADER_BYTES} bytes"))

    def on_message_begin(self) -> None:
        """A request begins; uvicorn's scope is made only if uvicorn is to answer it."""
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self.begun_at, self.header_bytes = monotonic(), 0
        if self.state is ENDING:
            self.state = IGNORING

    def on_headers_complete(self) -> None:
        """Decide who answers."""
        if self.state is IGNORING:
            return
        if len(self.headers) > MOST_HEADERS:
            self.refuse(HeadersTooLarge(f"a request may have {MOST_HEADERS} headers"))
            return
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                self.refuse(MethodNotAllowed("CONNECT asks a proxy, and this is none", "GET, HEAD, POST"))
            else:
                self._ask_again()
            return
        route = self.routes.get(self.url)
        if route is not None and not self.expect_100_continue and (self.cycle is None or not self.is_busy):
            self.arriving = match_fast_path(self, self.parser, self.headers, self.context, route)
            if self.arriving is not None:
                self._take(self.arriving)
                return
        self.begun_at = None
        if (fault := host_fault(self.parser, self.headers)) is not None:
            self.refuse(fault)
            return
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers += headers
        super().on_headers_complete()
        self.headers = _DiscardedTrailers()
        self._balance()

    def _take(self, fast: FastPathRequest) -> None:
        """Owe an answer; a body that is known to have no room is not waited for."""
        self.unanswered.append(fast)
        if not fast.fits(self.gateway.body_memory):
            self._give_up(too_many_bodies_in_flight())

    def on_body(self, body: bytes) -> None:
        """Part of a body."""
        fast = self.arriving
        if fast is not None:
            fast.parts.append(body)
            if fast.length > LONG_BODY_BYTES and not fast.arrive(self.gateway.body_memory, len(body)):
                self._give_up(too_many_bodies_in_flight())
        elif not self.is_ignored:
            self.header_bytes -= len(body)
            super().on_body(body)

    def on_chunk_header(self) -> None:
        """A chunk of a body."""
        self.header_bytes -= CHUNK_BYTES

    def _give_up(self, error: HttpError) -> None:
        """Answer the prediction whose body is arriving, and read no more."""
        fast, self.arriving, self.begun_at = self.arriving, None, None
        self.state = IGNORING
        assert fast is not None  # there is one, or there would be nothing to give up
        fast.discard(self.gateway.body_memory)
        fast.request.finish(error)

    def on_message_complete(self) -> None:
        """A whole request."""
        fast, self.arriving, self.begun_at = self.arriving, None, None
        self.piece_bytes = self.turn = 0
        if fast is None:
            if not self.is_ignored:
                super().on_message_complete()
                self.cycle.more_body = False  # uvicorn leaves it where the answer came first
            return
        if fast.is_last:
            self.end()
        self.unanswered_bytes += fast.length
        if len(self.unanswered) > 1 or fast.length >= MOST_UNANSWERED_BYTES:
            self._balance()
        fast.submit(self.gateway)

    # What goes back.

    def flush(self) -> None:
        """Write the answers whose turn has come."""
        while self.unanswered and (answer := self.unanswered[0].answer) is not None:
            fast = self.unanswered.popleft()
            self.unanswered_bytes -= fast.length
            if isinstance(answer, HttpError) or self.state is not OPEN:
                self._send(fast.response(answer))
                if isinstance(answer, Overloaded) and not (self.is_ending or self.is_paused):
                    self.pause()
            else:
                self._write(fast.to_bytes(answer, tuple(self.server_state.default_headers)), 200)
        if self.unanswered or self.flow.read_paused or self.state is not OPEN or self.pipeline:
            self._rest()
        else:
            self.idle_at = monotonic()

    def _send(self, answer: Response) -> None:
        if CLOSE in answer.headers:
            self.end()
        elif self.is_ending and not (self.unanswered or self.pipeline or self.complaint):
            answer.headers.append(CLOSE)
        self._write(answer.to_bytes(self.server_state.default_headers), answer.status)

    def _write(self, content: bytes, status: int) -> None:
        self.context.responses.count(status)
        self.unread_bytes += len(content)
        self.transport.write(content)

    def _rest(self) -> None:
        """Let uvicorn go on, complain, close, or read on, where no prediction is owed any more."""
        self.idle_at = monotonic()
        if self.transport.is_closing():
            return
        if self.unanswered:
            self._balance()
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self.complaint is not None:
            self._complain(self.complaint)
        elif self.is_ending:
            self.transport.close()
        elif self.flow.read_paused:
            self._balance()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if self.unanswered:
            self.pipeline.appendleft((cycle, app))  # its turn comes after theirs
            return
        self.running = cycle
        if self.is_pipelining:
            self.context.low_priority.add(self.context.low_priority.new_turn(), partial(self._start_now, cycle, app))
        else:
            self._start_now(cycle, app)

    def _start_now(self, cycle: Any, app: Any) -> None:
        if self.is_ending and not (self.pipeline or self.complaint):
            cycle.keep_alive = False
        if not self.transport.is_closing():
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Uvicorn has answered."""
        self.idle_at = monotonic()
        self.is_pipelining = True
        super().on_response_complete()
        self._unset_keepalive_if_required()  # ``sweep`` looks after it
        self.is_pipelining = False
        if self._owes_much:
            self._balance()
        if self.complaint and not self.is_busy:
            self._rest()

    def refuse(self, error: HttpError) -> None:
        """Read no more, and say why after the answers that are owed."""
        logger.warning("a request was refused: %s", error, extra={"event": "broken_request", "code": error.code})
        self.state = IGNORING
        newest = self.cycle
        if newest is not None and newest.more_body and self.pipeline:  # its own body is broken: it gets no answer
            self.pipeline.popleft()
            self.cycle = self.running
        is_broken = newest is not None and newest is self.running and newest.more_body
        if is_broken and newest.response_started and not newest.response_complete:  # no complaint in its middle
            self.transport.close()
            return
        if self.unanswered or (self.is_busy and not is_broken):
            self.complaint = error
            self._balance()
        else:
            self._complain(error)

    def _complain(self, error: HttpError) -> None:
        self.complaint, answer = None, make_response(error, new_request_id())
        if not error.is_last:
            answer.headers.append(CLOSE)
        self._send(answer)
        self.transport.close()

    # What becomes of the connection.

    def eof_received(self) -> None:
        """The client has gone; like uvicorn, take a half-closed connection for a closed one."""
        self._abandon()

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop what nobody waits for any more."""
        self._abandon()
        if self.running is not None and self.running is not self.cycle and not self.running.response_complete:
            self.running.disconnected = True  # uvicorn tells only the newest of pipelined requests
            self.running.message_event.set()
        super().connection_lost(exc)
        self.flow.rest = b""  # a connection is a cycle of references: its bytes would wait for the garbage collector
        if self.cycle is not None:
            self.cycle.body.clear()

    def _abandon(self) -> None:
        self.state = IGNORING
        if self.arriving is not None:
            self.arriving.discard(self.gateway.body_memory)
        self.arriving = self.begun_at = None
        while self.unanswered:
            self.unanswered.popleft().request.abandon()

    def shutdown(self) -> None:
        """The server stops: answer what has been asked, then close."""
        self.end()
        if not self.unanswered:
            super().shutdown()

    def time_out(self, patience: float) -> None:
        """End a request that has not arrived in time, with 408."""
        if self.arriving is not None:
            self._give_up(RequestTimeout(f"the body did not arrive within {patience:g} seconds"))
        elif not (self.unanswered or self.is_busy):
            self.refuse(RequestTimeout(f"the headers did not arrive within {patience:g} seconds"))
