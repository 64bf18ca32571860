"""Queue samples for one model and cut them into micro-batches."""

import math
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from time import monotonic
from typing import Any, TypeAlias

from models.card import AnyCard, Array, Prediction
from models.errors import DeadlineExceeded, HttpError, Overloaded
from models.runtime.predictor import LatencyModel
from service.telemetry.tracing import RequestTimes

FULL = "the queue is full, try again"
NO_TIME = "no answer within the time limit"
# How a request ended that has its answer; ``service.telemetry.metrics`` names the other ways.
ANSWERED = "answered"
# Batches, and how often. What arrives meanwhile is read between two of them, so that a few may seem to take far too
# long; the shortest of the last streaks counts.
STREAK, STREAKS = 8, 3


class PendingRequest:
    """One request's samples on their way through a model, as the queue and the batcher know them.

    Attributes:
        times: When it was where, and what the log calls it.
        samples: Encoded instances, in order.
        explain: Whether the attention is wanted.
        deadline: When an answer would be too late, on the monotonic clock.
        is_load_test: Whether it is marked as load, and so says nothing of what callers ask.
        ended: How it ended: ``ANSWERED``, or why what is left of it never reaches the model; empty until then.
        missing: Samples without a prediction.
        predictions: In order; empty ones are missing.
    """

    samples: list[Any]
    explain = False
    deadline = math.inf
    is_load_test = False
    ended = ""
    missing = 0
    predictions: list[Prediction]

    def __init__(self, request_id: bytes = b"") -> None:
        self.times = RequestTimes(request_id)

    @property
    def wants_outputs(self) -> bool:
        """Return whether the model's own outputs are wanted as well."""
        return False

    def take_outputs(self, index: int, outputs: Mapping[str, Array]) -> None:
        """Take the part of the outputs that belongs to one sample; called only where ``wants_outputs``."""

    def finish(self, result: list[Prediction] | HttpError) -> None:
        """End the request with its predictions or an error, unless it has ``ended``."""
        raise NotImplementedError

    def answer(self, index: int, prediction: Prediction) -> None:
        """Note the prediction of one sample; the last one ends the request."""
        self.predictions[index] = prediction
        self.missing -= 1
        if not self.missing:
            self.finish(self.predictions)


# One sample that waits: its request, its index there, its cost in units of the budget. A plain tuple: thousands of
# them are made in a second, and naming their fields takes longer than filling them.
QueuedSample: TypeAlias = tuple[PendingRequest, int, int]


class RequestQueue:
    """Cuts the samples of one model's pending requests into micro-batches within the card's budget.

    What waits when an execution slot is free makes a round. A round is cut into batches that the budget holds; where
    padding costs, its samples are sorted by length first. A request that no batch holds waits apart, and brings one
    batch into each round: nobody else waits for its end. What is too late or abandoned is dropped before it reaches the
    model.

    Args:
        card: The model's.
        limit: How many samples may wait.
        latency: How long a batch takes, where that is known.
        on_drop: Called with samples that nobody waits for any more and the model never sees.

    Attributes:
        room: How many samples more may wait.
        units: Units of the budget that a newcomer would wait for.
        unit_seconds: What each of them takes while others wait, everything included.
    """

    def __init__(
        self,
        card: AnyCard,
        *,
        limit: int,
        latency: LatencyModel | None,
        on_drop: Callable[[Collection[QueuedSample]], None],
    ) -> None:
        self._card, self._budget, self._drop = card, card.budget, on_drop
        self.limit = self.room = limit
        self.waiting: deque[QueuedSample] = deque()
        self.held: deque[deque[QueuedSample]] = deque()
        self.round: deque[list[QueuedSample]] = deque()
        full = card.budget.batch
        self.units, self.unit_seconds = 0, latency.seconds(full) / full if latency is not None else 0.0
        self.paces = deque([self.unit_seconds] * STREAKS, maxlen=STREAKS)
        self.streak, self.streak_at, self.streak_units = 0, 0.0, 0

    @property
    def wait_seconds(self) -> float:
        """Return how long a newcomer would wait for its turn, by what the last batches took."""
        return self.units * self.unit_seconds

    @property
    def backlog(self) -> int:
        """Samples that wait."""
        return self.limit - self.room

    def refusal(self) -> Overloaded:
        """Return what to say to a newcomer for whom there is no room, or too long a wait."""
        error = Overloaded(FULL)
        if self.room:
            error.refusal = "long_wait"
        return error

    def enqueue(self, pending: PendingRequest) -> None:
        """Queue a request's samples, all or none.

        Raises:
            Overloaded: If the queue has no room for all of them.
            DeadlineExceeded: If computing them would take too long by itself.
        """
        count = pending.missing = len(pending.samples)
        if count > self.room:
            raise Overloaded(FULL)
        costs = [*map(self._card.cost, pending.samples)]
        units = sum(costs)
        if units > self._budget.batch and monotonic() + units * self.unit_seconds > pending.deadline:
            error = DeadlineExceeded(NO_TIME)
            error.refusal = "too_late"
            raise error
        pending.predictions = [{}] * count
        self.room -= count
        entries = [(pending, index, cost) for index, cost in enumerate(costs)]
        if units <= self._budget.batch:
            self.units += units
            self.waiting.extend(entries)
        else:
            if self._budget.is_padded:
                entries.sort(key=itemgetter(2))  # as they come, so that each slice is of one length
            self.held.append(deque(entries))
            if len(self.held) == 1:
                self._let_in()

    def _let_in(self) -> None:
        """Let the next batch of the oldest large request wait with the others."""
        rest = self.held[0]
        for _ in range(self._budget.cut(cost for _, _, cost in rest)):
            self.units += rest[0][2]
            self.waiting.append(rest.popleft())
        if not rest:
            self.held.popleft()

    @property
    def has_work(self) -> bool:
        """Return whether anything waits."""
        return bool(self.waiting or self.round or self.held)

    @property
    def is_full(self) -> bool:
        """Return whether what waits fills a batch whatever comes; no sample costs less than one unit."""
        return len(self.waiting) >= self._budget.batch

    def next_batch(self) -> list[QueuedSample]:
        """Return the next micro-batch of samples that somebody still waits for; empty when there is none."""
        if not self.round:
            self._begin_round()
        now = monotonic()
        while self.round:
            planned = self.round.popleft()
            units = self._forget(planned)
            ready_at = now + units * self.unit_seconds
            batch = [entry for entry in planned if not entry[0].ended and entry[0].deadline > ready_at]
            if len(batch) < len(planned):
                _refuse_late(planned, ready_at)
                self._drop([entry for entry in planned if entry[0].ended])
            if batch:
                self._begin(units, now)
                return batch
        self.streak = 0
        return []

    def _forget(self, entries: Collection[QueuedSample]) -> int:
        """Let entries wait no more; their units."""
        units = sum([cost for _, _, cost in entries])
        self.room += len(entries)
        self.units -= units
        return units

    def _begin(self, units: int, now: float) -> None:
        """Learn how long a unit takes from some batches in a row, not too small, with others waiting all the time."""
        if self.streak == STREAK:
            if 2 * self.streak_units >= STREAK * self._budget.batch:
                self.paces.append((now - self.streak_at) / self.streak_units)
                self.unit_seconds = min(self.paces)
            self.streak = 0
        if self.streak == 0:
            self.streak_at, self.streak_units = now, 0
        self.streak, self.streak_units = (self.streak + 1, self.streak_units + units) if self.units else (0, 0)

    def _begin_round(self) -> None:
        entries = [*self.waiting]
        self.waiting.clear()
        if self.held:
            self._let_in()
        if self._budget.is_padded:
            entries.sort(key=itemgetter(2))
        plain = [entry for entry in entries if not entry[0].explain]
        self._plan(plain)
        if len(plain) < len(entries):
            self._plan([entry for entry in entries if entry[0].explain])

    def _plan(self, entries: list[QueuedSample]) -> None:
        costs, start = [cost for _, _, cost in entries], 0
        for size in self._budget.cuts(costs):
            self.round.append(entries[start : start + size])
            start += size

    def expire(self, now: float, running: Sequence[list[QueuedSample]] = ()) -> bool:
        """Refuse the requests whose deadline has passed; whether there is anything left to watch."""
        late = [pending for pending, _, _ in chain(self.waiting, *self.round, *running) if pending.deadline <= now]
        for pending in late:
            pending.finish(DeadlineExceeded(NO_TIME))
        if late or not self.room:
            gone = [entry for entry in self.waiting if entry[0].ended]
            self._forget(gone)
            self._drop(gone)
            self.waiting = deque([entry for entry in self.waiting if not entry[0].ended])
            gone = [entry for rest in self.held if rest[0][0].ended for entry in rest]
            self.room += len(gone)
            self._drop(gone)
            self.held = deque([rest for rest in self.held if not rest[0][0].ended])
            self.streak = self.streak if self.units else 0
        return bool(self.waiting or self.round or running)


def _refuse_late(entries: Collection[QueuedSample], ready_at: float) -> None:
    """An answer that would be too late is not computed."""
    for pending, _, _ in entries:
        if pending.deadline <= ready_at:
            pending.finish(DeadlineExceeded(NO_TIME))
