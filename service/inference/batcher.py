"""The micro-batcher: greedy, no timer. What arrived while the last batch ran forms the next."""

import logging
import math
from collections.abc import Awaitable, Callable, Collection
from time import monotonic
from typing import Protocol, TypeAlias

from models.card import Array, Feeds, Prediction
from models.errors import RunnerFailed
from models.runtime.output_slices import cut
from models.runtime.predictor import Pace, Predictor
from service.inference.measurements import Meter, Ran, note, requests
from service.inference.request_queue import Entry, Pending, Turns
from service.telemetry.drift import Watch

logger = logging.getLogger("lectern.batching")

# One poisonous sample among 64 costs twelve more runs, like with halves, and a third less is computed in vain.
PARTS = 4

AsyncRun: TypeAlias = Callable[[Feeds, list[str]], Awaitable[dict[str, Array]]]


class Runner(Protocol):
    """What computes: ``run`` in a thread or another process, ``run_now`` here, without ever waiting."""

    async def run(self, feeds: Feeds, outputs: list[str], /) -> dict[str, Array]:
        """Outputs by name."""

    async def run_now(self, feeds: Feeds, outputs: list[str], /) -> dict[str, Array]:
        """The same; asked only of runners with a pace."""


class Scheduler(Protocol):
    """What decides when a batcher computes."""

    @property
    def is_called(self) -> bool:
        """Whether it looks at the active batchers at the end of this turn of the event loop."""

    def add(self, batcher: "MicroBatcher", /) -> None:
        """Let a model compute here."""

    def call(self, batcher: "MicroBatcher", /) -> None:
        """Something waits there."""


class MicroBatcher(Turns):
    """Computes the samples of one model, turn by turn.

    A lone request never waits for company. When the model fails on a batch, its quarters are tried until the poisonous
    sample stands alone: its batch-mates get their answers. A sample whose own outputs are not finite costs its
    batch-mates nothing.

    Attributes:
        pace: How long a batch takes where ``run_now`` can compute it, else ``None``.
        lanes: Where it computes.
        used_seconds: Computing time so far, for a fair share of the lanes.
        is_active: Whether it took part in the sharing when that was last looked at.
        meter: Measures its batches.
        gives_tensors: Whether any request has wanted the model's own outputs so far.
        is_told: Whether each request notes its own times, for ``service.telemetry.tracing``.
    """

    def __init__(
        self,
        predictor: Predictor,
        runner: Runner,
        lanes: Scheduler,
        *,
        name: str,
        version: str,
        queue_limit: int,
        pace: Pace | None = None,
        watch: Watch | None = None,
    ) -> None:
        super().__init__(predictor, queue_limit=queue_limit, pace=pace)
        self.runner, self.lanes, self.name, self.pace = runner, lanes, name, pace
        self.meter = Meter(name, version, predictor.card.budget, queue_limit)
        self.watch = watch
        self.running: list[list[Entry]] = []
        self.used_seconds = 0.0
        self.is_active = self.is_told = self.gives_tensors = False
        lanes.add(self)

    def submit(self, pending: Pending) -> None:
        """Queue a request's samples, all or none.

        Raises:
            Overloaded: If the queue has no room for all of them.
            DeadlineExceeded: If computing them would take too long by itself.
        """
        self.enqueue(pending)
        if pending.takes_tensors:
            self.gives_tensors = True
        pending.queued = monotonic()
        if not (self.is_active and self.lanes.is_called) or self.is_full:
            self.lanes.call(self)

    def seconds(self, batch: list[Entry]) -> float:
        """How long computing it here would take; for ever where that is impossible."""
        if self.pace is None:
            return math.inf
        return self.pace.seconds(self.predictor.card.budget.units([cost for _, _, cost in batch]))

    def spend(self, seconds: float) -> None:
        """A batch took so long of the lanes' time."""
        self.used_seconds += seconds
        self.meter.spend(seconds)

    def drop(self, entries: Collection[Entry]) -> None:
        """Count what the model never sees."""
        self.meter.drop(entries)

    async def answer(self, batch: list[Entry], run: AsyncRun) -> None:
        """Compute a batch and hand every answer to its request; never raises."""
        now = monotonic()
        self.meter.begin(batch, now)
        if self.is_told:
            for pending in requests(batch):
                pending.begun = pending.begun or now
        self.running.append(batch)
        try:
            await self._answer(batch, run)
        finally:
            self.running.remove(batch)

    async def _answer(self, batch: list[Entry], run: AsyncRun) -> None:
        error, ran = None, None
        predictions: list[Prediction | None]
        try:
            predictions, ran = await self._predict(batch, run)
        except RunnerFailed as caught:
            predictions, error = [None] * len(batch), caught
        left = []
        for entry, prediction in zip(batch, predictions, strict=True):
            if prediction is None:
                left.append(entry)
            else:
                entry[0].answer(entry[1], prediction)
        if ran is not None:
            self.meter.end(batch, ran)
        if len(batch) > 1:
            size = math.ceil(len(left) / PARTS) if len(left) == len(batch) else len(left)
            for start in range(0, len(left), max(1, size)):
                await self._answer(left[start : start + size], run)
        elif left:
            pending = left[0][0]
            told = {"event": "model_failed", "model": self.name, "request_id": pending.request_id.decode()}
            logger.error("%s", error or "an output is not finite", exc_info=error and error.__cause__, extra=told)
            pending.finish(RunnerFailed("the model failed on this request"))

    async def _predict(self, batch: list[Entry], run: AsyncRun) -> tuple[list[Prediction | None], Ran]:
        """Predictions, with ``None`` where there is no finite one, and when they were computed."""
        samples = [pending.samples[place] for pending, place, _ in batch]
        try:
            feeds = self.predictor.card.collate(samples)
            began = monotonic()
            outputs = await run(feeds, self.predictor.wanted(explain=batch[0][0].explain))
            ran = Ran(began, monotonic())
            if self.is_told:
                note(batch, ran)
            predictions = self.predictor.decode_each(outputs, samples)
            if len(predictions) != len(samples):
                raise RunnerFailed(f"{len(predictions)} answers to {len(samples)} samples")
            if self.gives_tensors:
                self._hand_out(batch, outputs)
            if self.watch is not None:
                asked = [index for index, (pending, _, _) in enumerate(batch) if not pending.is_load_test]
                self.watch.see([samples[index] for index in asked], [predictions[index] for index in asked])
            return predictions, ran
        except RunnerFailed:
            raise
        except Exception as error:  # the border to the model: whatever it raises, its batch-mates must live
            raise RunnerFailed("the model failed on a micro-batch") from error

    def _hand_out(self, batch: list[Entry], outputs: dict[str, Array]) -> None:
        """Give the requests that want the outputs themselves their parts of them."""
        if not any(pending.takes_tensors for pending, _, _ in batch):
            return
        card = self.predictor.card
        parts = cut(card, outputs, [pending.samples[place] for pending, place, _ in batch])
        for (pending, place, _), part in zip(batch, parts, strict=True):
            if pending.takes_tensors:
                pending.tensors[place] = part
