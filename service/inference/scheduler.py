"""Share the execution slots of a device fairly among its models."""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from time import monotonic, perf_counter
from typing import Any

from service.inference.batcher import MicroBatcher
from service.inference.request_queue import PendingRequest, QueuedSample
from service.telemetry.fast_values import MmapGauge
from service.telemetry.state_metrics import SLOT_SECONDS, SLOTS

# On the event loop a batch delays everybody by its time; in a thread it costs its own callers 60 µs of waking up.
# Longer batches there gave 1 to 12 % more throughput with a single core, and ten times the p99.
QUICK_SECONDS = 0.0005
TICK_SECONDS = 0.02


class Share:
    """One model's share of a device: its batcher, and how much of the device's time it has had.

    Attributes:
        batcher: Computes the model's batches.
        scheduler: Decides when.
        used_seconds: Computing time so far.
        is_active: Whether it took part in the sharing when that was last looked at.
        is_quick: Whether its batches are computed on the event loop.
    """

    __slots__ = ("batcher", "is_active", "is_quick", "scheduler", "used_seconds")

    def __init__(self, batcher: MicroBatcher, scheduler: "FairScheduler") -> None:
        self.batcher, self.scheduler = batcher, scheduler
        self.used_seconds, self.is_active = 0.0, False
        latency, budget = batcher.latency, batcher.predictor.card.budget
        self.is_quick = latency is not None and latency.seconds(budget.batch) <= QUICK_SECONDS

    def submit(self, pending: PendingRequest) -> None:
        """Queue a request's samples, all or none, and have them computed in their turn.

        Raises:
            Overloaded: If the queue has no room for all of them.
            DeadlineExceeded: If computing them would take too long by itself.
        """
        batcher = self.batcher
        batcher.queue.enqueue(pending)
        if pending.wants_outputs:
            batcher.gives_outputs = True
        pending.times.queued = monotonic()
        if not (self.is_active and self.scheduler.is_called) or batcher.queue.is_full:
            self.scheduler.call(self)

    def spend(self, seconds: float) -> None:
        """Count computing time."""
        self.used_seconds += seconds
        self.batcher.meter.spend(seconds)


class FairScheduler:
    """Gives the execution slots of one device to the model that has used it least.

    A batch that is done sooner than a thread wakes up is computed on the event loop; any other takes a free slot.
    Models are served by start-time fair queueing on the seconds they computed (Goyal, Vin and Cheng 1996,
    https://doi.org/10.1145/248156.248171), so that one model's flood leaves the others their share.

    Args:
        slots: How many batches may be computed at once.
        pool: What the slots are called in the metrics.

    Attributes:
        free: Slots that nobody uses.
        shares: Those of the device's models.
        is_called: Whether it looks at the active models at the end of this turn of the event loop.
    """

    def __init__(self, slots: int, pool: str = "gateway") -> None:
        self.free = slots
        MmapGauge(SLOTS, pool=pool).set(slots)
        self._busy = MmapGauge(SLOT_SECONDS, pool=pool)
        self.shares: list[Share] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.is_called = False
        self._virtual_seconds = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_ticking = False

    def add(self, batcher: MicroBatcher) -> Share:
        """Let a model compute here."""
        share = Share(batcher, self)
        self.shares.append(share)
        return share

    def remove(self, share: Share) -> None:
        """Forget a model that nobody asks any more."""
        self.shares.remove(share)

    def call(self, share: Share) -> None:
        """Note that something waits; not needed again while the share ``is_active`` and the scheduler ``is_called``."""
        if not share.is_active:
            share.is_active, share.used_seconds = True, max(share.used_seconds, self._virtual_seconds)
        if share.is_quick and share.batcher.queue.is_full:
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
        while share := self._neediest():
            batcher = share.batcher
            batch = batcher.queue.next_batch()
            if not batch:
                continue
            self._virtual_seconds = share.used_seconds
            if batcher.seconds(batch) <= QUICK_SECONDS:
                started = perf_counter()
                _complete(batcher.answer(batch, batcher.runner.run_now))
                share.spend(perf_counter() - started)
                self._call()  # the loop reads what arrived meanwhile before the next one
                return
            self.free -= 1
            task = asyncio.get_running_loop().create_task(self._compute(share, batch))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def _neediest(self) -> Share | None:
        waiting = []
        for share in self.shares:
            share.is_active = share.batcher.queue.has_work
            if share.is_active and (self.free or share.is_quick):
                waiting.append(share)
        return min(waiting, key=lambda share: share.used_seconds, default=None)

    async def _compute(self, share: Share, batch: list[QueuedSample]) -> None:
        started = perf_counter()
        try:
            await share.batcher.answer(batch, share.batcher.runner.run)
        finally:
            spent = perf_counter() - started
            share.spend(spent)
            self._busy.add(spent)
            self.free += 1
            self._call()

    def _tick(self) -> None:
        """Refuse what is too late and show how much waits, as long as there is anything."""
        now = monotonic()
        left = [share.batcher.queue.expire(now, share.batcher.running) for share in self.shares]
        waiting = Counter[str]()
        for batcher in (share.batcher for share in self.shares):  # two versions of a model while one replaces the other
            waiting[batcher.name] += batcher.queue.backlog
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
