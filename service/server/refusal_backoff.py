"""Pause connections that were refused, and resume them a few at a time."""

import asyncio
from collections import deque
from typing import Protocol

# Refusing takes a core 15 to 40 µs. Five thousand refusals per second leave it most of its time to answer with.
TICK_SECONDS = 0.01
EACH_TICK = 50


class PausedConnection(Protocol):
    """A connection that is not read for the moment."""

    def resume(self) -> None:
        """Read on."""


class RefusalBackoff:
    """The connections of one process that were refused for want of time, in order.

    Without it a flood of requests that are refused at once takes all the time there is for answering the others. A
    client that waits as long as it was told never notices.
    """

    def __init__(self) -> None:
        self.waiting: deque[PausedConnection] = deque()
        self._is_ticking = False

    def add(self, connection: PausedConnection) -> None:
        """Read on when its turn has come."""
        self.waiting.append(connection)
        if not self._is_ticking:
            self._is_ticking = True
            asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        for _ in range(min(EACH_TICK, len(self.waiting))):
            self.waiting.popleft().resume()
        self._is_ticking = bool(self.waiting)
        if self._is_ticking:
            asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)
