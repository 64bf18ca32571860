"""What Prometheus sees of Lectern itself, with closed label sets initialised at start."""

from collections.abc import Collection, Iterable, Sequence
from time import monotonic, time
from typing import NamedTuple

from prometheus_client import Counter, Gauge, Histogram

from models.budget import Budget
from models.errors import HttpError
from service.cells import Cell, Spread, Tally
from service.exemplars import Exemplars
from service.metrics_storage import require_room
from service.turns import ABANDONED, BROKEN, LATE, Entry, Pending

OUTCOMES = (
    "ok",
    "malformed_request",
    "unauthenticated",
    "forbidden",
    "method_not_allowed",
    "request_timeout",
    "body_too_large",
    "unsupported_media_type",
    "invalid_request",
    "rate_limited",
    "runner_failed",
    "overloaded",
    "draining",
    "deadline_exceeded",
    "disconnected",
    "internal",
)
# Why nothing of a request was begun, by ``HttpError.refusal``.
REFUSALS = ("queue_full", "long_wait", "too_late", "body_memory", "rate_limited", "draining")
EXPIRED = (LATE, ABANDONED, BROKEN)
STAGES = ("encode", "queue", "infer", "decode")

require_room()  # before the first metric makes its file

LATENCY_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

REQUESTS = Counter("lectern_requests_total", "Requests to a model, by how they ended.", ["model", "version", "outcome"])
_LATENCY = Histogram(
    "lectern_request_seconds", "From the whole body to the answer.", ["model", "version"], buckets=LATENCY_BUCKETS
)
_IN_FLIGHT = Gauge(
    "lectern_requests_in_flight",
    "Requests to a model whose headers are here and that have not ended, in all workers.",
    ["model"],
    multiprocess_mode="livesum",
)
_REQUEST_BYTES = Counter(
    "lectern_request_body_bytes_total", "Bodies of requests to a model that arrived whole and were read.", ["model"]
)
_RESPONSE_BYTES = Counter(
    "lectern_response_body_bytes_total", "Bodies of a model's answers that are no errors.", ["model"]
)
_STAGE = Histogram(
    "lectern_stage_seconds",
    "Encode: from the whole body to the queue. For each micro-batch that a request is in, queue: until it began, "
    "infer: its run, decode: an equal share of the time from its outputs to its answers.",
    ["model", "stage"],
    buckets=LATENCY_BUCKETS,
)
_BATCH = Histogram(
    "lectern_batch_instances", "Instances in a micro-batch.", ["model"], buckets=(1, 2, 4, 8, 16, 32, 64, 128)
)
_FILL = Histogram(
    "lectern_batch_fill_ratio",
    "Part of the budget that a micro-batch takes; above 1 for one instance larger than the budget.",
    ["model"],
    buckets=SHARES,
)
_PADDING = Histogram(
    "lectern_batch_padding_ratio", "Part of a micro-batch that is padding, of padded models.", ["model"], buckets=SHARES
)
_COMPUTE = Counter("lectern_compute_seconds_total", "Time that a model's micro-batches took of the lanes.", ["model"])
_WAITING = Gauge(
    "lectern_queue_instances", "Instances that wait, in all workers.", ["model"], multiprocess_mode="livesum"
)
_LIMIT = Gauge(
    "lectern_queue_limit_instances", "Instances that may wait, in all workers.", ["model"], multiprocess_mode="livesum"
)
_LAST = Gauge(
    "lectern_last_batch_timestamp_seconds",
    "When a model's last micro-batch had become answers; 0 before the first.",
    ["model"],
    multiprocess_mode="livemax",
)
_EXPIRED = Counter(
    "lectern_expired_instances_total",
    "Instances dropped before they ran: too late, abandoned by the caller, or of a request that another part broke.",
    ["model", "reason"],
)
_REFUSALS = Counter("lectern_refusals_total", "Requests refused for want of room or time, by why.", ["model", "reason"])


class Answered(list[float]):
    """How long the requests took that were answered since the last micro-batch ended, seconds.

    Attributes:
        last: Whose time is the last one.
    """

    last: Pending | None = None


class Ledger:
    """Counts how one model's requests ended and how long they took.

    A request is counted before its answer leaves: whatever a caller has seen is counted, even if this process is killed
    in the next instant.

    Args:
        model: Whose.
        version: Of it.
        answered: Its ``Meter``'s, which takes the times at the end of each micro-batch.
    """

    def __init__(self, model: str, version: str, answered: Answered) -> None:
        self._answered = answered
        self._outcomes = Tally(REQUESTS, OUTCOMES, model=model, version=version)
        self._refusals = Tally(_REFUSALS, REFUSALS, model=model)
        ok, sent = Cell(REQUESTS, model=model, version=version, outcome="ok"), Cell(_RESPONSE_BYTES, model=model)
        received, open_now = Cell(_REQUEST_BYTES, model=model), Cell(_IN_FLIGHT, model=model)
        self._ok, self._ok_place = ok.numbers, ok.place
        self._sent, self._sent_place = sent.numbers, sent.place
        self._received, self._received_place = received.numbers, received.place
        self._open, self._open_place = open_now.numbers, open_now.place

    def begin(self) -> None:
        """Note that a request's headers are here; it ends by ``answer``, ``fail`` or ``abandon``."""
        self._open[self._open_place] += 1.0

    def read(self, length: int) -> None:
        """Note that its body is here, of so many bytes."""
        self._received[self._received_place] += length

    def answer(self, pending: Pending, seconds: float, length: int) -> None:
        """Note the end of one request that is answered, the time it took, and the bytes of its answer."""
        self._ok[self._ok_place] += 1.0
        self._sent[self._sent_place] += length
        self._open[self._open_place] -= 1.0
        self._answered.append(seconds)
        self._answered.last = pending

    def fail(self, error: HttpError) -> None:
        """Note the end of one request that gets an error."""
        self._open[self._open_place] -= 1.0
        self.refuse(error)

    def abandon(self) -> None:
        """Note the end of one request whose caller has left."""
        self._open[self._open_place] -= 1.0
        self._outcomes.add("disconnected")

    def refuse(self, error: HttpError) -> None:
        """Note a request that got an error before anything of it was begun."""
        self._outcomes.add(error.code)
        if error.refusal:
            self._refusals.add(error.refusal)


class Ran(NamedTuple):
    """When a micro-batch's run began and when its outputs were there, on the monotonic clock."""

    began: float
    ended: float


class Meter:
    """Measures one model's micro-batches: a few steps for each, however many requests are in it.

    Attributes:
        waiting: Instances that wait in this process.
        answered: Since the last micro-batch ended.
    """

    def __init__(self, model: str, version: str, budget: Budget, queue_limit: int) -> None:
        self._budget = budget
        self._encode, self._queue, self._infer, self._decode = (
            Spread(_STAGE, model=model, stage=stage) for stage in STAGES
        )
        self._latency = Spread(_LATENCY, model=model, version=version)
        self._sizes, self._fill = Spread(_BATCH, model=model), Spread(_FILL, model=model)
        self._padding = Spread(_PADDING, model=model) if budget.is_padded else None
        self._expired = Tally(_EXPIRED, EXPIRED, model=model)
        self._compute, self._last = Cell(_COMPUTE, model=model), Cell(_LAST, model=model)
        self.waiting = Cell(_WAITING, model=model)
        self.answered = Answered()
        self._exemplars = Exemplars("lectern_request_seconds", LATENCY_BUCKETS, model=model, version=version)
        Cell(_LIMIT, model=model).set(queue_limit)

    def begin(self, batch: Sequence[Entry], now: float) -> None:
        """A micro-batch begins."""
        costs = [cost for _, _, cost in batch]
        units = self._budget.units(costs)
        self._sizes.add(len(costs))
        self._fill.add(units / self._budget.batch)
        if self._padding is not None:
            self._padding.add(1 - sum(costs) / units if units else 0.0)
        self._encode.add_all([pending.queued - pending.started for pending, place, _ in batch if not place])
        self._queue.add_all([now - pending.queued for pending in requests(batch)])

    def end(self, batch: Sequence[Entry], ran: Ran) -> None:
        """Its outputs have become answers."""
        count = len(requests(batch))
        self._infer.add(ran.ended - ran.began, count)
        self._decode.add((monotonic() - ran.ended) / count, count)
        now, answered = time(), self.answered
        if answered.last is not None:
            self._exemplars.note(answered.last, answered[-1], now)
            answered.last = None
        self._latency.add_all(answered)
        answered.clear()
        self._last.set(now)

    def spend(self, seconds: float) -> None:
        """A micro-batch took a lane for so long."""
        self._compute.add(seconds)

    def drop(self, entries: Iterable[Entry]) -> None:
        """Samples never reach the model, because their requests are over."""
        for pending, _, _ in entries:
            self._expired.add(pending.dropped)


def requests(batch: Sequence[Entry]) -> Collection[Pending]:
    """The requests that have instances in a micro-batch, each once."""
    first = [pending for pending, place, _ in batch if not place]
    return first if len(first) == len(batch) else {pending for pending, _, _ in batch}


def note(batch: Sequence[Entry], ran: Ran) -> None:
    """Let each request in a micro-batch know how long its run took."""
    for pending in requests(batch):
        pending.inferring += ran.ended - ran.began
        pending.ready = ran.ended
