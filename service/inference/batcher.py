"""Compute micro-batches: greedily, without a timer. What arrived while the last batch ran forms the next."""

import logging
import math
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Protocol, TypeAlias

from models.card import Array, Feeds, Prediction
from models.errors import RunnerFailed
from models.runtime.output_slices import cut
from models.runtime.predictor import LatencyModel, Predictor
from service.inference.measurements import BatchMeter, RunTimes, record_run_times, requests_of
from service.inference.request_queue import QueuedSample, RequestQueue
from service.telemetry.drift import DriftCounters

logger = logging.getLogger("lectern.batching")

# One poisonous sample among 64 costs twelve more runs, like with halves, and a third less is computed in vain.
PARTS = 4

AsyncRun: TypeAlias = Callable[[Feeds, list[str]], Awaitable[dict[str, Array]]]


class Runner(Protocol):
    """Describe what computes: ``run`` in a thread or another process, ``run_now`` here, without ever waiting."""

    async def run(self, feeds: Feeds, outputs: list[str], /) -> dict[str, Array]:
        """Outputs by name."""

    async def run_now(self, feeds: Feeds, outputs: list[str], /) -> dict[str, Array]:
        """Return the same; asked only of runners with a pace."""


class MicroBatcher:
    """Computes the samples of one model in micro-batches, as its queue cuts them.

    A lone request never waits for company. When the model fails on a batch, its quarters are tried until the poisonous
    sample stands alone: its batch-mates get their answers. A sample whose own outputs are not finite costs its
    batch-mates nothing.

    Args:
        predictor: The model's.
        runner: What computes.
        name: The model's.
        version: Of it.
        queue_limit: How many samples may wait.
        latency: How long a batch takes where ``run_now`` can compute it, else ``None``.
        drift: Counts what is asked and answered, where a profile says what is usual.

    Attributes:
        queue: What waits.
        running: The batches that are being computed.
        meter: Measures its batches.
        gives_outputs: Whether any request has wanted the model's own outputs so far.
        is_traced: Whether each request notes its own times, for ``service.telemetry.tracing``.
    """

    def __init__(
        self,
        predictor: Predictor,
        runner: Runner,
        *,
        name: str,
        version: str,
        queue_limit: int,
        latency: LatencyModel | None = None,
        drift: DriftCounters | None = None,
    ) -> None:
        self.predictor, self.runner, self.name, self.latency, self.drift = predictor, runner, name, latency, drift
        self.meter = BatchMeter(name, version, predictor.card.budget, queue_limit)
        self.queue = RequestQueue(predictor.card, limit=queue_limit, latency=latency, on_drop=self.meter.drop)
        self.running: list[list[QueuedSample]] = []
        self.is_traced = self.gives_outputs = False

    def seconds(self, batch: list[QueuedSample]) -> float:
        """Return how long computing a batch here would take; infinite where that is impossible."""
        if self.latency is None:
            return math.inf
        return self.latency.seconds(self.predictor.card.budget.units([cost for _, _, cost in batch]))

    async def answer(self, batch: list[QueuedSample], run: AsyncRun) -> None:
        """Compute a batch and hand every answer to its request; never raises."""
        now = monotonic()
        self.meter.begin(batch, now)
        if self.is_traced:
            for pending in requests_of(batch):
                pending.times.begun = pending.times.begun or now
        self.running.append(batch)
        try:
            await self._answer(batch, run)
        finally:
            self.running.remove(batch)

    async def _answer(self, batch: list[QueuedSample], run: AsyncRun) -> None:
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
            log_fields = {"event": "model_failed", "model": self.name, "request_id": pending.times.request_id.decode()}
            logger.error("%s", error or "an output is not finite", exc_info=error and error.__cause__, extra=log_fields)
            pending.finish(RunnerFailed("the model failed on this request"))

    async def _predict(self, batch: list[QueuedSample], run: AsyncRun) -> tuple[list[Prediction | None], RunTimes]:
        """Predictions, with ``None`` where there is no finite one, and when they were computed."""
        samples = [pending.samples[index] for pending, index, _ in batch]
        try:
            feeds = self.predictor.card.collate(samples)
            began = monotonic()
            outputs = await run(feeds, self.predictor.wanted(explain=batch[0][0].explain))
            ran = RunTimes(began, monotonic())
            if self.is_traced:
                record_run_times(batch, ran)
            predictions = self.predictor.decode_each(outputs, samples)
            if len(predictions) != len(samples):
                raise RunnerFailed(f"{len(predictions)} answers to {len(samples)} samples")
            if self.gives_outputs:
                self._hand_out(batch, outputs)
            if self.drift is not None:
                asked = [index for index, (pending, _, _) in enumerate(batch) if not pending.is_load_test]
                self.drift.see([samples[index] for index in asked], [predictions[index] for index in asked])
            return predictions, ran
        except RunnerFailed:
            raise
        except Exception as error:  # the border to the model: whatever it raises, its batch-mates must live
            raise RunnerFailed("the model failed on a micro-batch") from error

    def _hand_out(self, batch: list[QueuedSample], outputs: dict[str, Array]) -> None:
        """Give the requests that want the outputs themselves their parts of them."""
        if not any(pending.wants_outputs for pending, _, _ in batch):
            return
        card = self.predictor.card
        parts = cut(card, outputs, [pending.samples[index] for pending, index, _ in batch])
        for (pending, index, _), part in zip(batch, parts, strict=True):
            if pending.wants_outputs:
                pending.take_outputs(index, part)
