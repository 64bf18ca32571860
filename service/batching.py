"""The micro-batcher: greedy, no timer. What arrived while the last batch ran forms the next."""

import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from itertools import chain
from operator import itemgetter
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from models.errors import DeadlineExceeded, HttpError, Overloaded, RunnerFailed
from models.family import Array, Feeds, Prediction
from models.predictor import Pace, Predictor
from service.metrics import BATCH

if TYPE_CHECKING:
    from service.lanes import Lanes

logger = logging.getLogger("lectern.batching")

# One poisonous sample among 64 costs twelve more runs, like with halves, and a third less is computed in vain.
PARTS = 4
FULL = "the queue is full, try again"
LATE = "no answer within the time limit"
# Batches, and how often. What arrives meanwhile is read between two of them, so that a few may seem to take far too
# long; the shortest of the last streaks counts.
STREAK, STREAKS = 8, 3

AsyncRun: TypeAlias = Callable[[Feeds, list[str]], Awaitable[dict[str, Array]]]


class Runner(Protocol):
    """What computes: ``run`` in a thread or another process, ``run_now`` here, without ever waiting."""

    async def run(self, feeds: Feeds, outputs: list[str], /) -> dict[str, Array]:
        """Outputs by name."""

    async def run_now(self, feeds: Feeds, outputs: list[str], /) -> dict[str, Array]:
        """The same; asked only of runners with a pace."""


class Pending:
    """One request's samples on their way through a model.

    Attributes:
        request_id: What the log calls it.
        samples: Encoded instances, in order.
        explain: Whether the attention is wanted.
        deadline: When an answer would be too late, on the monotonic clock.
        is_over: Answered, refused or abandoned; what is left of it never reaches the model.
        missing: Samples without a prediction.
        predictions: In order; empty ones are missing.
    """

    request_id = b""
    samples: list[Any]
    explain = False
    deadline = math.inf
    is_over = False
    missing = 0
    predictions: list[Prediction]

    def finish(self, result: list[Prediction] | HttpError) -> None:
        """End the request with its predictions or an error; does nothing when ``is_over``, and makes it so."""
        raise NotImplementedError

    def answer(self, place: int, prediction: Prediction) -> None:
        """Note the prediction of one sample; the last one ends the request."""
        self.predictions[place] = prediction
        self.missing -= 1
        if not self.missing:
            self.finish(self.predictions)


# One sample that waits: whose it is, its place there, its cost in units of the budget. A plain tuple: thousands
# of them are made in a second, and naming their fields takes longer than filling them.
Entry: TypeAlias = tuple[Pending, int, int]


class MicroBatcher:
    """Collects samples of one model into micro-batches within the card's budget.

    What waits when a lane is free makes a round. A round is cut into batches that the budget holds; where padding
    costs, its samples are sorted by length first. So a lone request never waits for company, and a long one is never
    overtaken for ever. What is too late or abandoned is dropped before it reaches the model. When the model fails on
    a batch, its quarters are tried until the poisonous sample stands alone: its batch-mates get their answers. A
    sample whose own outputs are not finite costs its batch-mates nothing.

    Attributes:
        room: How many samples more may wait.
        pace: How long a batch takes where ``run_now`` can compute it, else ``None``.
        lanes: Where it computes.
        units: Units of the budget that wait.
        unit_seconds: What each of them takes while others wait, everything included.
        used_seconds: Computing time so far, for a fair share of the lanes.
        is_active: Whether it took part in the sharing when that was last looked at.
    """

    def __init__(
        self,
        predictor: Predictor,
        runner: Runner,
        lanes: "Lanes",
        *,
        name: str,
        queue_limit: int,
        pace: Pace | None = None,
    ) -> None:
        self.predictor, self.runner, self.lanes = predictor, runner, lanes
        self.name = name
        self.queue_limit = self.room = queue_limit
        self.pace = pace
        self.sizes = BATCH.labels(name)
        self.waiting: deque[Entry] = deque()
        self.round: deque[list[Entry]] = deque()
        self.running: list[list[Entry]] = []
        full = predictor.card.budget.batch
        self.units, self.unit_seconds = 0, pace.seconds(full) / full if pace is not None else 0.0
        self.paces = deque([self.unit_seconds] * STREAKS, maxlen=STREAKS)
        self.streak, self.streak_at, self.streak_units = 0, 0.0, 0
        self.used_seconds = 0.0
        self.is_active = False
        lanes.add(self)

    @property
    def wait_seconds(self) -> float:
        """How long a newcomer would wait for its turn, by what the last batches took."""
        return self.units * self.unit_seconds

    @property
    def backlog(self) -> int:
        """Samples that wait."""
        return self.queue_limit - self.room

    def submit(self, pending: Pending) -> None:
        """Queue a request's samples, all or none.

        Raises:
            Overloaded: If the queue has no room for all of them.
        """
        count = pending.missing = len(pending.samples)
        if count > self.room:
            raise Overloaded(FULL)
        pending.predictions = [{}] * count
        self.room -= count
        costs = [*map(self.predictor.card.cost, pending.samples)]
        self.units += sum(costs)
        self.waiting.extend([(pending, place, cost) for place, cost in enumerate(costs)])
        if not (self.is_active and self.lanes.is_called) or self.is_full:
            self.lanes.call(self)

    @property
    def is_full(self) -> bool:
        """Whether what waits fills a batch whatever comes; no sample costs less than one unit."""
        return len(self.waiting) >= self.predictor.card.budget.batch

    def seconds(self, batch: list[Entry]) -> float:
        """How long computing it here would take; for ever where that is impossible."""
        if self.pace is None:
            return math.inf
        return self.pace.seconds(self.predictor.card.budget.units([cost for _, _, cost in batch]))

    def next_batch(self) -> list[Entry]:
        """The next micro-batch of samples that somebody still waits for; empty when there is none."""
        if not self.round:
            self._begin_round()
        now = monotonic()
        while self.round:
            planned = self.round.popleft()
            units = self._forget(planned)
            ready_at = now + units * self.unit_seconds
            batch = [entry for entry in planned if not entry[0].is_over and entry[0].deadline > ready_at]
            if len(batch) < len(planned):
                _refuse_late(planned, ready_at)
            if batch:
                self._begin(units, now)
                return batch
        self.streak = 0
        return []

    def _forget(self, entries: Collection[Entry]) -> int:
        """Let entries wait no more; their units."""
        units = sum([cost for _, _, cost in entries])
        self.room += len(entries)
        self.units -= units
        return units

    def _begin(self, units: int, now: float) -> None:
        """Learn how long a unit takes from some batches in a row, not too small, with others waiting all the time."""
        if self.streak == STREAK:
            if 2 * self.streak_units >= STREAK * self.predictor.card.budget.batch:
                self.paces.append((now - self.streak_at) / self.streak_units)
                self.unit_seconds = min(self.paces)
            self.streak = 0
        if self.streak == 0:
            self.streak_at, self.streak_units = now, 0
        self.streak, self.streak_units = (self.streak + 1, self.streak_units + units) if self.units else (0, 0)

    def _begin_round(self) -> None:
        entries = [*self.waiting]
        self.waiting.clear()
        if self.predictor.card.budget.is_padded:
            entries.sort(key=itemgetter(2))
        plain = [entry for entry in entries if not entry[0].explain]
        self._plan(plain)
        if len(plain) < len(entries):
            self._plan([entry for entry in entries if entry[0].explain])

    def _plan(self, entries: list[Entry]) -> None:
        costs, start = [cost for _, _, cost in entries], 0
        for size in self.predictor.card.budget.cuts(costs):
            self.round.append(entries[start : start + size])
            start += size

    def expire(self, now: float) -> bool:
        """Refuse the requests whose deadline has passed; whether there is anything left to watch."""
        late = [pending for pending, _, _ in chain(self.waiting, *self.round, *self.running) if pending.deadline <= now]
        for pending in late:
            pending.finish(DeadlineExceeded(LATE))
        if late or not self.room:
            self._forget([entry for entry in self.waiting if entry[0].is_over])
            self.waiting = deque([entry for entry in self.waiting if not entry[0].is_over])
            self.streak = self.streak if self.units else 0
        return bool(self.waiting or self.round or self.running)

    async def answer(self, batch: list[Entry], run: AsyncRun) -> None:
        """Compute a batch and hand every answer to its request; never raises."""
        self.sizes.observe(len(batch))
        self.running.append(batch)
        try:
            await self._answer(batch, run)
        finally:
            self.running.remove(batch)

    async def _answer(self, batch: list[Entry], run: AsyncRun) -> None:
        error: RunnerFailed | None = None
        try:
            predictions = await self._predict(batch, run)
        except RunnerFailed as caught:
            predictions, error = [None] * len(batch), caught
        left = []
        for entry, prediction in zip(batch, predictions, strict=True):
            if prediction is None:
                left.append(entry)
            else:
                entry[0].answer(entry[1], prediction)
        if len(batch) > 1:
            size = math.ceil(len(left) / PARTS) if len(left) == len(batch) else len(left)
            for start in range(0, len(left), max(1, size)):
                await self._answer(left[start : start + size], run)
        elif left:
            pending = left[0][0]
            told = {"event": "model_failed", "model": self.name, "request_id": pending.request_id.decode()}
            logger.error("%s", error or "an output is not finite", exc_info=error and error.__cause__, extra=told)
            pending.finish(RunnerFailed("the model failed on this request"))

    async def _predict(self, batch: list[Entry], run: AsyncRun) -> list[Prediction | None]:
        """Predictions, and ``None`` where there is no finite one."""
        samples = [pending.samples[place] for pending, place, _ in batch]
        try:
            feeds = self.predictor.card.collate(samples)
            outputs = await run(feeds, self.predictor.wanted(explain=batch[0][0].explain))
            predictions = self.predictor.decode_each(outputs, samples)
            if len(predictions) != len(samples):
                raise RunnerFailed(f"{len(predictions)} answers to {len(samples)} samples")
            return predictions
        except RunnerFailed:
            raise
        except Exception as error:  # the border to the model: whatever it raises, its batch-mates must live
            raise RunnerFailed("the model failed on a micro-batch") from error


def _refuse_late(entries: Collection[Entry], ready_at: float) -> None:
    """An answer that would be too late is not computed."""
    for pending, _, _ in entries:
        if pending.deadline <= ready_at:
            pending.finish(DeadlineExceeded(LATE))
