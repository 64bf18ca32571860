"""Defer what must not take the time of answering: long bodies and pipelined pages, a little at a time."""

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from uvicorn.protocols.http.flow_control import FlowControl

# 64 MB in a second: 15 MB take a core 30 ms.
TICK_SECONDS = 0.001
PIECE_BYTES = 64 * 1024


# What is read into, by every connection of this process: it is free again when a protocol has its bytes.
BUFFER = memoryview(bytearray(PIECE_BYTES))


class BoundedReader(asyncio.BufferedProtocol):
    """Reads at most ``PIECE_BYTES`` at once for a protocol.

    uvloop itself reads 250 KB, and of each of two hundred pipelines that much waited for its turn.
    """

    def __init__(self, protocol: asyncio.Protocol) -> None:
        self._protocol = protocol

    def get_buffer(self, _: int) -> memoryview:
        """Return where the next bytes go."""
        return BUFFER

    def buffer_updated(self, size: int) -> None:
        """Hand over so many bytes."""
        self._protocol.data_received(bytes(BUFFER[:size]))

    def eof_received(self) -> bool | None:
        """Hand over that no more will come."""
        return self._protocol.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        """Hand over that it is over."""
        self._protocol.connection_lost(error)

    def pause_writing(self) -> None:
        """Hand over that the client does not read."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Hand over that the client reads again."""
        self._protocol.resume_writing()


class ReadGate(FlowControl):
    """Whether a connection is read: not while it owes too much, as uvicorn has it, nor while it is held or filled.

    Attributes:
        is_held: Whether what follows waits for its turn among the long bodies.
        rest: What was read and not looked at yet.
    """

    def __init__(self, transport: asyncio.Transport, pour: Callable[[], None]) -> None:
        super().__init__(transport)
        self._pour = pour
        self.is_held = self._is_shut = False
        self.rest = b""

    @property
    def is_open(self) -> bool:
        """Return whether anything may be looked at."""
        return not (self.read_paused or self.is_held)

    def pause_reading(self) -> None:
        """Look at no more until ``resume_reading``."""
        self.read_paused = True
        self.turn()

    def resume_reading(self) -> None:
        """Go on, unless held."""
        self.read_paused = False
        self.turn()

    def hold(self) -> None:
        """Look at no more until ``release``."""
        self.is_held = True
        self.turn()

    def release(self) -> None:
        """Go on, unless paused."""
        self.is_held = False
        self.turn()

    def turn(self) -> None:
        """Read, or read no more; what was read and not looked at comes first."""
        if self.rest and self.is_open:
            asyncio.get_running_loop().call_soon(self._pour)
        is_shut = bool(self.rest) or not self.is_open
        if is_shut is not self._is_shut and not self._transport.is_closing():
            self._is_shut = is_shut
            (self._transport.pause_reading if is_shut else self._transport.resume_reading)()


class LowPriorityQueue:
    """Work of one process that is done one piece at a time, the oldest first.

    Two hundred senders of long bodies had the process copy their bytes instead of answering, and hold a part of each;
    in turn, each body is whole, or too long, before the next one grows. Thirty callers that asked for page after page
    and read none took a whole core.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = count(1)
        self._is_ticking = False

    def new_turn(self) -> int:
        """After all that were given so far."""
        return next(self._numbers)

    def add(self, turn: int, act: Callable[[], None]) -> None:
        """Act when everything of an earlier turn has been done."""
        heappush(self._waiting, (turn, next(self._numbers), act))
        self._wind()

    def _wind(self) -> None:
        if not self._is_ticking:
            self._is_ticking = True
            asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        self._is_ticking = False
        heappop(self._waiting)[2]()
        if self._waiting:
            self._wind()
