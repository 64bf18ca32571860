"""Threads that many long pieces of work share: in slices, and whoever has had least of them goes first."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from heapq import heappop, heappush
from itertools import count
from time import monotonic
from typing import TypeAlias

# A new piece of work waits no longer than this or one step; passing it on takes a hundredth of that.
SLICE_SECONDS = 0.01
# How long it had a thread so far, its number, what it is, and who waits for it.
Share: TypeAlias = tuple[float, int, Iterator[None], "Future[None]"]


class TimeSharingPool:
    """Runs iterators to their ends in the threads of a pool, each for a slice of time, the least served first.

    Two requests of 200 large pictures kept every other long body waiting for 78 s, when each had a thread to its end.

    Attributes:
        waiting: What no thread has at the moment, as a heap.
    """

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self.waiting: list[Share] = []
        self._numbers = count()
        self._lock = threading.Lock()

    def run(self, steps: Iterator[None]) -> "asyncio.Future[None]":
        """Take every step in some thread; what one raises is the future's."""
        done: Future[None] = Future()
        self._wait((0.0, next(self._numbers), steps, done))
        return asyncio.wrap_future(done)

    def _wait(self, share: Share) -> None:
        with self._lock:
            heappush(self.waiting, share)
        self._pool.submit(self._run_slice)

    def _run_slice(self) -> None:
        with self._lock:
            used, number, steps, done = heappop(self.waiting)
        started = monotonic()
        try:
            for _ in steps:
                if (more := monotonic() - started) > SLICE_SECONDS:
                    self._wait((used + more, number, steps, done))
                    return
        except BaseException as error:  # the border of the thread: whoever waits is told
            done.set_exception(error)
        else:
            done.set_result(None)
