"""Measure one model's requests and micro-batches."""

from collections.abc import Collection, Iterable, Sequence
from time import monotonic, time
from typing import NamedTuple

from models.budget import Budget
from models.errors import HttpError
from service.inference.request_queue import PendingRequest, QueuedSample
from service.telemetry.exemplars import Exemplars
from service.telemetry.fast_values import MmapCounters, MmapGauge, MmapHistogram
from service.telemetry.metrics import (
    BATCH,
    COMPUTE,
    EXPIRED,
    EXPIRED_TOTAL,
    FILL,
    IN_FLIGHT,
    LAST,
    LATENCY,
    LATENCY_BUCKETS,
    LIMIT,
    OUTCOMES,
    PADDING,
    REFUSALS,
    REFUSALS_TOTAL,
    REQUEST_BYTES,
    REQUESTS,
    RESPONSE_BYTES,
    STAGE,
    STAGES,
    WAITING,
)
from service.telemetry.tracing import RequestTimes


class AnsweredTimes(list[float]):
    """Describe how long the requests took that were answered since the last micro-batch ended, seconds.

    Attributes:
        last: Whose time is the last one.
    """

    last: RequestTimes | None = None


class RequestCounters:
    """Counts how one model's requests ended and how long they took.

    A request is counted before its answer leaves: whatever a caller has seen is counted, even if this process is killed
    in the next instant.

    Args:
        model: Whose.
        version: Of it.
        answered: Its ``BatchMeter``'s, which takes the times at the end of each micro-batch.
    """

    def __init__(self, model: str, version: str, answered: AnsweredTimes) -> None:
        self._answered = answered
        self._outcomes = MmapCounters(REQUESTS, OUTCOMES, model=model, version=version)
        self._refusals = MmapCounters(REFUSALS_TOTAL, REFUSALS, model=model)
        ok, sent = (
            MmapGauge(REQUESTS, model=model, version=version, outcome="ok"),
            MmapGauge(RESPONSE_BYTES, model=model),
        )
        received, open_now = MmapGauge(REQUEST_BYTES, model=model), MmapGauge(IN_FLIGHT, model=model)
        self._ok, self._ok_offset = ok.numbers, ok.offset
        self._sent, self._sent_offset = sent.numbers, sent.offset
        self._received, self._received_offset = received.numbers, received.offset
        self._open, self._open_offset = open_now.numbers, open_now.offset

    def begin(self) -> None:
        """Note that a request's headers are here; it ends by ``answer``, ``fail`` or ``abandon``."""
        self._open[self._open_offset] += 1.0

    def read(self, length: int) -> None:
        """Note that its body is here, of so many bytes."""
        self._received[self._received_offset] += length

    def answer(self, times: RequestTimes, seconds: float, length: int) -> None:
        """Note the end of one request that is answered, the time it took, and the bytes of its answer."""
        self._ok[self._ok_offset] += 1.0
        self._sent[self._sent_offset] += length
        self._open[self._open_offset] -= 1.0
        self._answered.append(seconds)
        self._answered.last = times

    def fail(self, error: HttpError) -> None:
        """Note the end of one request that gets an error."""
        self._open[self._open_offset] -= 1.0
        self.refuse(error)

    def abandon(self) -> None:
        """Note the end of one request whose caller has left."""
        self._open[self._open_offset] -= 1.0
        self._outcomes.add("disconnected")

    def refuse(self, error: HttpError) -> None:
        """Note a request that got an error before anything of it was begun."""
        self._outcomes.add(error.code)
        if error.refusal:
            self._refusals.add(error.refusal)


class RunTimes(NamedTuple):
    """Describe when a micro-batch's run began and when its outputs were there, on the monotonic clock."""

    began: float
    ended: float


class BatchMeter:
    """Measures one model's micro-batches: a few steps for each, however many requests are in it.

    Attributes:
        waiting: Instances that wait in this process.
        answered: Since the last micro-batch ended.
    """

    def __init__(self, model: str, version: str, budget: Budget, queue_limit: int) -> None:
        self._budget = budget
        self._encode, self._queue, self._infer, self._decode = (
            MmapHistogram(STAGE, model=model, stage=stage) for stage in STAGES
        )
        self._latency = MmapHistogram(LATENCY, model=model, version=version)
        self._sizes, self._fill = MmapHistogram(BATCH, model=model), MmapHistogram(FILL, model=model)
        self._padding = MmapHistogram(PADDING, model=model) if budget.is_padded else None
        self._expired = MmapCounters(EXPIRED_TOTAL, EXPIRED, model=model)
        self._compute, self._last = MmapGauge(COMPUTE, model=model), MmapGauge(LAST, model=model)
        self.waiting = MmapGauge(WAITING, model=model)
        self.answered = AnsweredTimes()
        self._exemplars = Exemplars("lectern_request_seconds", LATENCY_BUCKETS, model=model, version=version)
        MmapGauge(LIMIT, model=model).set(queue_limit)

    def begin(self, batch: Sequence[QueuedSample], now: float) -> None:
        """A micro-batch begins."""
        costs = [cost for _, _, cost in batch]
        units = self._budget.units(costs)
        self._sizes.add(len(costs))
        self._fill.add(units / self._budget.batch)
        if self._padding is not None:
            self._padding.add(1 - sum(costs) / units if units else 0.0)
        self._encode.add_all([pending.times.queued - pending.times.started for pending, index, _ in batch if not index])
        self._queue.add_all([now - pending.times.queued for pending in requests_of(batch)])

    def end(self, batch: Sequence[QueuedSample], ran: RunTimes) -> None:
        """Its outputs have become answers."""
        count = len(requests_of(batch))
        self._infer.add(ran.ended - ran.began, count)
        self._decode.add((monotonic() - ran.ended) / count, count)
        now, answered = time(), self.answered
        if answered.last is not None:
            last = answered.last
            self._exemplars.note(last.request_id, last.parent, answered[-1], now)
            answered.last = None
        self._latency.add_all(answered)
        answered.clear()
        self._last.set(now)

    def spend(self, seconds: float) -> None:
        """A micro-batch took a lane for so long."""
        self._compute.add(seconds)

    def drop(self, entries: Iterable[QueuedSample]) -> None:
        """Samples never reach the model, because their requests are over."""
        for pending, _, _ in entries:
            self._expired.add(pending.ended)


def requests_of(batch: Sequence[QueuedSample]) -> Collection[PendingRequest]:
    """Return the requests that have instances in a micro-batch, each once."""
    first = [pending for pending, index, _ in batch if not index]
    return first if len(first) == len(batch) else {pending for pending, _, _ in batch}


def record_run_times(batch: Sequence[QueuedSample], ran: RunTimes) -> None:
    """Let each request in a micro-batch know how long its run took."""
    for pending in requests_of(batch):
        pending.times.inferring += ran.ended - ran.began
        pending.times.ready = ran.ended
