"""Where micro-batches compute: a few lanes per device, shared fairly by its models."""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from time import monotonic, perf_counter
from typing import Any

from service.inference.batcher import MicroBatcher
from service.inference.request_queue import Entry
from service.telemetry.fast_values import Cell
from service.telemetry.state_metrics import SLOT_SECONDS, SLOTS

# On the event loop a batch delays everybody by its time; in a thread it costs its own callers 60 µs of waking up.
# Longer batches there gave 1 to 12 % more throughput with a single core, and ten times the p99.
QUICK_SECONDS = 0.0005
TICK_SECONDS = 0.02


class Lanes:
    """The places of one device, given to the model that has used it least.

    A batch that is done sooner than a thread wakes up is computed on the event loop; any other takes a free lane.
    Models are served by start-time fair queueing on the seconds they computed (Goyal, Vin and Cheng 1996,
    https://doi.org/10.1145/248156.248171), so that one model's flood leaves the others their share.
    """

    def __init__(self, count: int, pool: str = "gateway") -> None:
        self.free = count
        Cell(SLOTS, pool=pool).set(count)
        self._busy = Cell(SLOT_SECONDS, pool=pool)
        self.batchers: list[MicroBatcher] = []
        self.quick: set[MicroBatcher] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.now_seconds = 0.0
        self.is_called = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_ticking = False

    def add(self, batcher: MicroBatcher) -> None:
        """Let a model compute here."""
        self.batchers.append(batcher)
        pace, budget = batcher.pace, batcher.predictor.card.budget
        if pace is not None and pace.seconds(budget.batch) <= QUICK_SECONDS:
            self.quick.add(batcher)

    def remove(self, batcher: MicroBatcher) -> None:
        """Forget a model that nobody asks any more."""
        self.batchers.remove(batcher)
        self.quick.discard(batcher)

    def call(self, batcher: MicroBatcher) -> None:
        """Something waits there; not needed again while the batcher ``is_active`` and ``is_called``."""
        if not batcher.is_active:
            batcher.is_active, batcher.used_seconds = True, max(batcher.used_seconds, self.now_seconds)
        if batcher in self.quick and batcher.is_full:
            self._start()  # more company would only push what is decoded out of the cache
        else:
            self._call()

    def _call(self) -> None:
        """Start what can start at the end of this turn of the loop, so that all requests of the turn go along."""
        if self.is_called:
            return
        # Asking for the running loop makes a system call (Python 3.11): a fifth of a view-count request's time.
        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.get_running_loop()
        self.is_called = True
        self._loop.call_soon(self._start)
        if not self._is_ticking:
            self._is_ticking = True
            self._loop.call_later(TICK_SECONDS, self._tick)

    def _start(self) -> None:
        self.is_called = False
        while batcher := self._neediest():
            batch = batcher.next_batch()
            if not batch:
                continue
            self.now_seconds = batcher.used_seconds
            if batcher.seconds(batch) <= QUICK_SECONDS:
                started = perf_counter()
                _complete(batcher.answer(batch, batcher.runner.run_now))
                batcher.spend(perf_counter() - started)
                self._call()  # the loop reads what arrived meanwhile before the next one
                return
            self.free -= 1
            task = asyncio.get_running_loop().create_task(self._compute(batcher, batch))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def _neediest(self) -> MicroBatcher | None:
        waiting = []
        for batcher in self.batchers:
            batcher.is_active = batcher.has_work
            if batcher.is_active and (self.free or batcher in self.quick):
                waiting.append(batcher)
        return min(waiting, key=lambda batcher: batcher.used_seconds, default=None)

    async def _compute(self, batcher: MicroBatcher, batch: list[Entry]) -> None:
        started = perf_counter()
        try:
            await batcher.answer(batch, batcher.runner.run)
        finally:
            spent = perf_counter() - started
            batcher.spend(spent)
            self._busy.add(spent)
            self.free += 1
            self._call()

    def _tick(self) -> None:
        """Refuse what is too late and show how much waits, as long as there is anything."""
        left = [batcher.expire(monotonic(), batcher.running) for batcher in self.batchers]
        waiting = Counter[str]()
        for batcher in self.batchers:  # two versions of a model for a moment, while one takes the other's place
            waiting[batcher.name] += batcher.backlog
            batcher.meter.waiting.set(waiting[batcher.name])
        self._is_ticking = any(left)
        if self._is_ticking:
            asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)


def _complete(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise RuntimeError("a quick batch waited")
