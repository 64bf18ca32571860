"""The micro-share over a model that computes 2x + 1: every caller gets its own answer, known by heart."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from itertools import chain
from time import monotonic
from types import SimpleNamespace
from typing import Any, TypeVar

import msgspec
import numpy as np
import pytest

from models.budget import Budget
from models.card import Card, Feeds, TensorSpec, Tolerance
from models.errors import DeadlineExceeded, HttpError, Overloaded, RunnerFailed
from models.runtime.predictor import LatencyModel, Predictor
from service.inference.batcher import MicroBatcher
from service.inference.request_queue import ANSWERED, PendingRequest
from service.inference.scheduler import TICK_SECONDS, FairScheduler, Share
from service.telemetry.metrics import ABANDONED, BROKEN

T = TypeVar("T")
Samples = list[int]
IN_FLIGHT = 2


class Assets(msgspec.Struct, frozen=True):
    """A model without constants."""

    sizes: dict[str, int] = {}


def make_predictor(budget: Budget, cost: Callable[[int], int] = lambda sample: 1, decimal: bool = False) -> Predictor:
    """Return a predictor of whole numbers; its attention says with whom a sample was computed."""
    card: Any = Card(
        family="fake",
        task="double",
        assets=Assets,
        instance=int,
        prediction=dict,
        example=lambda assets: 1,
        random_request=lambda rng, assets: int(rng.integers(1000)),
        validate=lambda instance, assets: iter(()),
        encode=lambda instance, assets: instance,
        collate=lambda samples: {"x": np.asarray(samples, np.int64)},
        decode=lambda outputs, samples, assets: [
            {"y": np.float64(y) if decimal else int(y)}
            | {name: int(values[row]) for name, values in outputs.items() if name != "y"}
            for row, y in enumerate(outputs["y"])
        ],
        inputs=(TensorSpec(name="x", dtype="int64", axes=("batch",)),),
        outputs=(
            TensorSpec(name="y", dtype="int64", axes=("batch",)),
            TensorSpec(name="attention", dtype="int64", axes=("batch",), is_attention=True),
        ),
        tolerance=Tolerance(atol=0, rtol=0, reason="whole numbers"),
        cost=cost,
        budget=budget,
        from_media={},
    )
    return Predictor(card=card, assets=Assets(), outputs=frozenset(("y", "attention")), run=lambda feeds, names: {})


class Model:
    """2x + 1; remembers its batches, may be closed until told, and fails on what it cannot bear."""

    def __init__(self, poison: frozenset[int] = frozenset(), error: Exception | None = None) -> None:
        self.batches: list[Samples] = []
        self.outputs: list[list[str]] = []
        self.poison, self.error = poison, error or ValueError("private")
        self.gate: asyncio.Event | None = None
        self.running = self.most_running = 0

    async def __call__(self, feeds: Feeds, names: list[str]) -> dict[str, Any]:
        self.batches.append(feeds["x"].tolist())
        self.outputs.append(names)
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        await (self.gate.wait() if self.gate else asyncio.sleep(0))
        self.running -= 1
        if self.poison.intersection(feeds["x"].tolist()):
            raise self.error
        found = {"y": 2 * feeds["x"] + 1, "attention": np.full(len(feeds["x"]), len(feeds["x"]))}
        return {name: found[name] for name in names}


ROWS = Budget(unit="rows", batch=8, explained=1)


def make_share(
    model: Any,
    budget: Budget = ROWS,
    queue_limit: int = 5000,
    cost: Any = None,
    lanes: FairScheduler | None = None,
    pace: LatencyModel | None = None,
    decimal: bool = False,
) -> Share:
    predictor = make_predictor(budget, cost or (lambda sample: 1), decimal)
    runner: Any = SimpleNamespace(run=model, run_now=model)
    batcher = MicroBatcher(predictor, runner, name="fake", version="1.0.0", queue_limit=queue_limit, latency=pace)
    return (lanes or FairScheduler(IN_FLIGHT)).add(batcher)


def run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a test's coroutine; one that hangs is a failure, not a wait."""

    async def in_time() -> T:
        async with asyncio.timeout(2):
            return await work()

    return asyncio.run(in_time())


async def turns(count: int = 10) -> None:
    """Let the loop turn; no time passes."""
    for _ in range(count):
        await asyncio.sleep(0)


class Asked(PendingRequest):
    """A request whose answers somebody awaits."""

    def __init__(self, answered: "asyncio.Future[Any]") -> None:
        super().__init__()
        self.answered = answered

    def finish(self, result: Any) -> None:
        if not self.ended:
            self.ended = BROKEN if isinstance(result, Exception) else ANSWERED
            self.answered.set_result(result)


async def submit(share: Share, samples: Sequence[int], *, explain: bool = False, seconds: float = 60) -> list[Any]:
    """Return a request's answers; whoever cancels this abandons the request."""
    loop = asyncio.get_running_loop()
    pending = Asked(loop.create_future())
    pending.samples, pending.explain, pending.deadline = list(samples), explain, monotonic() + seconds
    share.submit(pending)
    try:
        result = await pending.answered
    finally:
        pending.ended = pending.ended or ABANDONED
    if isinstance(result, HttpError):
        raise result
    return list(result)


async def ask(share: Share, *samples: int, explain: bool = False) -> list[int]:
    return [answer["y"] for answer in await submit(share, samples, explain=explain)]


def test_own_answers() -> None:
    """Each of a thousand callers gets its own answer, in batches that the budget fills."""

    async def work() -> None:
        model = Model()
        share = make_share(model)
        found = await asyncio.gather(*(ask(share, caller) for caller in range(1000)))
        assert found == [[2 * caller + 1] for caller in range(1000)]
        assert sorted(sample for batch in model.batches for sample in batch) == list(range(1000))
        assert [len(batch) for batch in model.batches] == [8] * 125
        assert not share.batcher.queue.waiting
        assert not share.batcher.queue.round
        assert not share.scheduler.tasks
        assert share.scheduler.free == IN_FLIGHT

    run(work)


def test_requests_of_many() -> None:
    """A request's answers keep its order, however its samples are cut and whoever asks at the same time."""

    async def work() -> None:
        share = make_share(Model())
        rng = np.random.default_rng(0)
        requests = [rng.integers(0, 10**6, rng.integers(1, 40)).tolist() for _ in range(60)]
        found = await asyncio.gather(*(ask(share, *request) for request in requests))
        assert found == [[2 * sample + 1 for sample in request] for request in requests]

    run(work)


@pytest.mark.parametrize("is_padded", [False, True])
def test_budget(is_padded: bool) -> None:
    """A batch holds what the budget allows, padding counted where it costs; a larger sample runs alone."""

    async def work() -> None:
        model = Model()
        budget = Budget(unit="tokens", batch=20, explained=1, is_padded=is_padded)
        share = make_share(model, budget, cost=lambda sample: sample)
        sizes = np.random.default_rng(1).integers(1, 26, 300).tolist()
        assert await ask(share, *sizes) == [2 * size + 1 for size in sizes]
        computed = [size for batch in model.batches for size in batch]
        assert computed == (sorted(sizes) if is_padded else sizes)
        filled = [max(batch) * len(batch) if is_padded else sum(batch) for batch in model.batches]
        assert all(fill <= 20 or len(batch) == 1 for fill, batch in zip(filled, model.batches, strict=True))
        assert any(len(batch) > 1 for batch in model.batches)
        # Greedy: no batch could have taken its successor's first sample too.
        for batch, after in zip(model.batches, model.batches[1:], strict=False):
            more = [*batch, after[0]]
            assert (max(more) * len(more) if is_padded else sum(more)) > 20

    run(work)


def test_poison() -> None:
    """A sample the model fails on fails alone, without its cause; all its batch-mates are answered."""

    async def work() -> None:
        model = Model(poison=frozenset((13, 14, 40)))
        share = make_share(model, Budget(unit="rows", batch=64, explained=1))
        answers = await asyncio.gather(*(ask(share, n) for n in range(64)), return_exceptions=True)
        for number, answer in enumerate(answers):
            if number in model.poison:
                assert isinstance(answer, RunnerFailed)
                assert "private" not in str(answer)
            else:
                assert answer == [2 * number + 1]
        assert len(model.batches) < 40
        assert share.scheduler.free == IN_FLIGHT

    run(work)


def test_not_finite_alone() -> None:
    """A sample whose outputs are not finite costs its batch-mates nothing: it alone is tried again, and fails."""

    async def work() -> None:
        batches: list[Samples] = []

        async def model(feeds: Feeds, names: list[str]) -> dict[str, Any]:
            batches.append(feeds["x"].tolist())
            return {"y": np.where(feeds["x"] == 13, np.nan, 2.0 * feeds["x"] + 1)}

        share = make_share(model, Budget(unit="rows", batch=64, explained=1), decimal=True)
        answers = await asyncio.gather(*(ask(share, n) for n in range(64)), return_exceptions=True)
        for number, answer in enumerate(answers):
            assert isinstance(answer, RunnerFailed) if number == 13 else answer == [2 * number + 1]
        assert batches == [[*range(64)], [13]]

    run(work)


def test_poison_in_a_request() -> None:
    """A request with a poisonous sample fails as a whole; the next ones are answered."""

    async def work() -> None:
        share = make_share(Model(poison=frozenset((13,))))
        with pytest.raises(RunnerFailed):
            await ask(share, 12, 13, 14)
        assert await ask(share, 12, 14) == [25, 29]

    run(work)


@pytest.mark.parametrize(
    "error", [KeyError("x"), MemoryError(), RunnerFailed("r"), Overloaded("o"), DeadlineExceeded("d")]
)
def test_nobody_hangs(error: Exception) -> None:
    """Whatever the runner raises, every caller hears of it."""

    async def work() -> None:
        share = make_share(Model(poison=frozenset((1,)), error=error))
        answers = await asyncio.gather(ask(share, 1), ask(share, 2), return_exceptions=True)
        assert isinstance(answers[0], HttpError)
        assert answers[1] == [5] or isinstance(answers[1], HttpError)
        assert await ask(share, 3) == [7]

    run(work)


@pytest.mark.parametrize(
    "spoil",
    [lambda y: {}, lambda y: {"y": y[:1]}, lambda y: {"y": y[:0]}, lambda y: {"y": np.full(len(y), np.nan)}],
    ids=["missing", "too few", "none", "not finite"],
)
def test_spoilt_outputs(spoil: Callable[[Any], Any]) -> None:
    """Outputs that are missing, too few or not finite are the model's failure, and nobody waits for them."""

    async def work() -> None:
        async def spoilt(feeds: Feeds, names: list[str]) -> dict[str, Any]:
            found: dict[str, Any] = spoil(2 * feeds["x"] + 1)
            return found

        share = make_share(spoilt)
        answers = await asyncio.gather(*(ask(share, n) for n in range(3)), return_exceptions=True)
        for number, answer in enumerate(answers):
            assert isinstance(answer, RunnerFailed) or answer == [2 * number + 1]
        assert any(isinstance(answer, RunnerFailed) for answer in answers) or spoil([1, 2]) == {"y": [1]}
        assert share.scheduler.free == IN_FLIGHT

    run(work)


def test_cancelled_callers() -> None:
    """A caller that gave up while waiting is dropped before it reaches the model; the others are not."""

    async def work() -> None:
        model = Model()
        model.gate = asyncio.Event()
        share = make_share(model)
        busy = [asyncio.create_task(ask(share, n)) for n in range(IN_FLIGHT)]
        await turns()
        if len(model.batches) < IN_FLIGHT:  # both went into one batch: fill the second place too
            busy.append(asyncio.create_task(ask(share, 50)))
            await turns()
        assert model.running == IN_FLIGHT
        waiting = {n: asyncio.create_task(ask(share, n)) for n in range(100, 120)}
        await turns()
        for number in range(100, 120, 2):
            waiting[number].cancel()
        await turns()
        model.gate.set()
        for number in range(101, 120, 2):
            assert await waiting[number] == [2 * number + 1]
        await asyncio.gather(*busy)
        seen = {sample for batch in model.batches for sample in batch}
        assert not seen & set(range(100, 120, 2))
        assert all(waiting[number].cancelled() for number in range(100, 120, 2))
        assert not share.batcher.queue.waiting
        assert not share.batcher.queue.round

    run(work)


def test_cancelled_while_computed() -> None:
    """A caller that gives up while its batch runs takes nobody with it."""

    async def work() -> None:
        model = Model()
        model.gate = asyncio.Event()
        share = make_share(model)
        first, second = (asyncio.create_task(ask(share, n)) for n in (1, 2))
        await turns()
        assert model.batches == [[1, 2]]
        first.cancel()
        await turns()
        model.gate.set()
        assert await second == [5]
        assert share.scheduler.free == IN_FLIGHT

    run(work)


def test_everybody_gave_up() -> None:
    """When all who wait gave up, nothing runs, nothing is left, and the next caller is served."""

    async def work() -> None:
        model = Model()
        model.gate = asyncio.Event()
        share = make_share(model, Budget(unit="rows", batch=1, explained=1))
        busy = [asyncio.create_task(ask(share, n)) for n in range(IN_FLIGHT)]
        waiting = [asyncio.create_task(ask(share, n)) for n in (7, 8)]
        await turns()
        for task in waiting:
            task.cancel()
        await turns()
        model.gate.set()
        await asyncio.gather(*busy)
        await turns()
        assert not share.batcher.queue.waiting
        assert not share.batcher.queue.round
        assert model.batches == [[0], [1]]
        assert await ask(share, 5) == [11]

    run(work)


def test_queue_limit() -> None:
    """A request the queue has no room for is refused whole, none of it is queued, and what waits is served."""

    async def work() -> None:
        model = Model()
        model.gate = asyncio.Event()
        share = make_share(model, Budget(unit="rows", batch=1, explained=1), queue_limit=3)
        busy = [asyncio.create_task(ask(share, n)) for n in range(IN_FLIGHT)]
        await turns()
        assert not share.batcher.queue.waiting
        assert not share.batcher.queue.round
        last = asyncio.create_task(ask(share, 10, 11))
        await turns()
        with pytest.raises(Overloaded, match=r"^the queue is full, try again$"):
            await ask(share, 20, 21)
        queued = [*share.batcher.queue.waiting, *chain(*share.batcher.queue.held)]
        assert [pending.samples[position] for pending, position, _ in queued] == [10, 11]
        fits = asyncio.create_task(ask(share, 30))
        await turns()
        with pytest.raises(Overloaded):
            await ask(share, 31)
        model.gate.set()
        assert await asyncio.gather(last, fits, *busy) == [[21, 23], [61], [1], [3]]
        assert not {20, 21, 31} & {sample for batch in model.batches for sample in batch}
        with pytest.raises(Overloaded):
            await ask(share, 1, 2, 3, 4)

    run(work)


def test_greedy() -> None:
    """A lone request reaches the model within a few turns of the loop; no timer is set."""

    async def work() -> None:
        model, loop = Model(), asyncio.get_running_loop()
        share = make_share(model)
        timers: list[Any] = []
        later = loop.call_later
        loop.call_later = lambda *args, **kwargs: timers.append(args) or later(*args, **kwargs)  # type: ignore[method-assign, func-returns-value]
        task = asyncio.create_task(ask(share, 5))
        await turns(4)
        assert model.batches == [[5]]
        assert await task == [11]
        assert [seconds for seconds, _ in timers] == [TICK_SECONDS]  # the watch over deadlines, which starts nothing

    run(work)


def test_together() -> None:
    """What arrives while the places are taken goes along in one batch, up to the budget."""

    async def work() -> None:
        model = Model()
        model.gate = asyncio.Event()
        share = make_share(model)
        busy = []
        for number in range(IN_FLIGHT):
            busy.append(asyncio.create_task(ask(share, number)))
            await turns()
        assert model.batches == [[number] for number in range(IN_FLIGHT)]
        late = [asyncio.create_task(ask(share, number)) for number in range(10, 20)]
        await turns()
        assert len(model.batches) == model.most_running == IN_FLIGHT
        model.gate.set()
        await asyncio.gather(*busy, *late)
        assert model.batches[IN_FLIGHT:] == [[*range(10, 18)], [18, 19]]
        assert model.most_running == IN_FLIGHT

    run(work)


def test_explained_apart() -> None:
    """Explained samples are never computed together with plain ones, and only they fetch attention."""

    async def work() -> None:
        model = Model()
        share = make_share(model)
        asked = [n % 3 == 0 for n in range(30)]
        calls: list[Awaitable[Any]] = [submit(share, [n], explain=explain) for n, explain in enumerate(asked)]
        answers = await asyncio.gather(*calls)
        for number, ((answer,), explain) in enumerate(zip(answers, asked, strict=True)):
            assert answer["y"] == 2 * number + 1
            assert ("attention" in answer) == explain
        for batch, names in zip(model.batches, model.outputs, strict=True):
            assert {asked[sample] for sample in batch} == {"attention" in names}

    run(work)


def test_order_of_arrival() -> None:
    """With one place after the other, who came first is computed first."""

    async def work() -> None:
        model = Model()
        share = make_share(model, Budget(unit="rows", batch=3, explained=1))
        await asyncio.gather(*(ask(share, n, explain=n >= 20) for n in range(40)))
        assert [sample for batch in model.batches for sample in batch] == list(range(40))

    run(work)
