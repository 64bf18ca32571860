"""The micro-batcher: greedy, no timer. What arrived while the last batch ran forms the next."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from models.errors import HttpError, Overloaded, RunnerFailed
from models.family import Array, Feeds, Prediction
from models.predictor import Predictor
from service.metrics import BATCH

logger = logging.getLogger("lectern.batching")

AsyncRun: TypeAlias = Callable[[Feeds, list[str]], Awaitable[dict[str, Array]]]
IN_FLIGHT = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """One sample that waits: its cost in budget units, and where its caller waits."""

    sample: Any
    cost: int
    explain: bool
    answer: "asyncio.Future[Prediction]"


class MicroBatcher:
    """Collects samples of one model into micro-batches within the card's budget.

    A batch holds what waits when a place is free, in order, so a lone request never waits for company. A caller that
    gave up is dropped before it reaches the model. When the model fails on a batch, its halves are tried until the
    poisonous sample stands alone: its batch-mates get their answers.
    """

    def __init__(self, predictor: Predictor, run: AsyncRun, *, name: str, queue_limit: int) -> None:
        self.predictor, self.run, self.queue_limit = predictor, run, queue_limit
        self.budget = predictor.card.budget
        self.sizes = BATCH.labels(name)
        self.waiting: deque[Entry] = deque()
        self.free = IN_FLIGHT
        self.tasks: set[asyncio.Task[None]] = set()

    async def submit(self, samples: Sequence[Any], *, explain: bool) -> list[Prediction]:
        """Predictions of one request's samples, in order.

        Raises:
            Overloaded: If the queue has no room for all of them; then none is queued.
            RunnerFailed: If the model fails on one of them.
        """
        if len(self.waiting) + len(samples) > self.queue_limit:
            raise Overloaded("the queue is full, try again")
        loop = asyncio.get_running_loop()
        entries = [Entry(sample, self.predictor.card.cost(sample), explain, loop.create_future()) for sample in samples]
        self.waiting.extend(entries)
        # At the end of the turn, so that all requests of this turn of the loop go along.
        loop.call_soon(self._start)
        return await asyncio.gather(*(entry.answer for entry in entries))

    def _start(self) -> None:
        while self.free and (batch := self._take()):
            self.free -= 1
            task = asyncio.get_running_loop().create_task(self._finish(batch))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def _take(self) -> list[Entry]:
        """The next micro-batch: the longest run of live entries of one kind that the budget holds."""
        alive: list[Entry] = []
        for entry in self.waiting:
            if entry.answer.done():
                continue
            if alive and entry.explain != alive[0].explain:
                break
            alive.append(entry)
            if len(alive) > self.budget.batch:  # no sample costs less than one unit
                break
        if not alive:
            self.waiting.clear()
            return []
        batch = alive[: self.budget.cut(entry.cost for entry in alive)]
        while self.waiting.popleft() is not batch[-1]:
            pass
        return batch

    async def _finish(self, batch: list[Entry]) -> None:
        try:
            self.sizes.observe(len(batch))
            await self._answer(batch)
        finally:
            self.free += 1
            self._start()

    async def _answer(self, batch: list[Entry]) -> None:
        try:
            predictions = await self._predict(batch)
        except RunnerFailed as error:
            if len(batch) == 1:
                logger.error("%s", error, exc_info=error.__cause__)
                _fail(batch[0], RunnerFailed("the model failed on this request"))
                return
            middle = len(batch) // 2
            await self._answer(batch[:middle])
            await self._answer(batch[middle:])
            return
        for entry, prediction in zip(batch, predictions, strict=True):
            if not entry.answer.done():
                entry.answer.set_result(prediction)

    async def _predict(self, batch: list[Entry]) -> list[Prediction]:
        samples = [entry.sample for entry in batch]
        try:
            feeds = self.predictor.card.collate(samples)
            outputs = await self.run(feeds, self.predictor.wanted(explain=batch[0].explain))
            predictions = self.predictor.decode(outputs, samples)
            if len(predictions) != len(samples):
                raise RunnerFailed(f"{len(predictions)} answers to {len(samples)} samples")
            return predictions
        except RunnerFailed:
            raise
        except Exception as error:  # the border to the model: whatever it raises, its batch-mates must live
            raise RunnerFailed("the model failed on a micro-batch") from error


def _fail(entry: Entry, error: HttpError) -> None:
    if not entry.answer.done():
        entry.answer.set_exception(error)
