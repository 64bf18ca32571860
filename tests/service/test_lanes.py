"""Sharing the places to compute: quick batches at once, fair shares for the others, nothing too late."""

import asyncio
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from models.budget import Budget
from models.card import Feeds
from models.errors import DeadlineExceeded, RunnerFailed
from models.runtime.predictor import LatencyModel, Predictor, warm_up
from service.inference.batcher import MicroBatcher
from service.inference.scheduler import QUICK_SECONDS, FairScheduler
from tests.service.test_batching import Model, ask, make_predictor, make_share, run, submit, turns

ONE_ROW = Budget(unit="rows", batch=1, explained=1)


class Timed:
    """A model that takes a lane for this long, and notes whose turn it was."""

    def __init__(self, name: str, seconds: float, turns: list[str]) -> None:
        self.name, self.seconds, self.turns = name, seconds, turns

    async def __call__(self, feeds: Feeds, names: list[str]) -> dict[str, Any]:
        self.turns.append(self.name)
        await asyncio.sleep(self.seconds)
        return {"y": 2 * feeds["x"] + 1}


def test_fair_between_models() -> None:
    """One model's flood leaves another the time it needs: shares are of seconds, not of batches."""

    async def work() -> None:
        order: list[str] = []
        lanes = FairScheduler(1)
        flood = make_share(Timed("flood", 0.01, order), ONE_ROW, lanes=lanes)
        other = make_share(Timed("other", 0.005, order), ONE_ROW, lanes=lanes)
        tasks = [asyncio.create_task(ask(flood, n)) for n in range(30)]
        await asyncio.sleep(0.05)
        await asyncio.gather(*(ask(other, n) for n in range(10)))
        shares = Counter(order[order.index("other") :][:12])
        assert shares["other"] >= 7  # two short ones for each long one
        await asyncio.gather(*tasks)

    run(work)


def test_idle_time_is_not_saved_up() -> None:
    """A model that was idle does not shut the others out when it comes back."""

    async def work() -> None:
        order: list[str] = []
        lanes = FairScheduler(1)
        busy = make_share(Timed("busy", 0.005, order), ONE_ROW, lanes=lanes)
        late = make_share(Timed("late", 0.005, order), ONE_ROW, lanes=lanes)
        await asyncio.gather(*(ask(busy, n) for n in range(20)))
        order.clear()
        await asyncio.gather(*(ask(model, n) for n in range(8) for model in (busy, late)))
        assert Counter(order[:8])["busy"] >= 3

    run(work)


def test_quick_batches_need_no_lane() -> None:
    """A model whose batches are quick is answered at once, though all lanes are taken; a slow one waits."""

    async def work() -> None:
        lanes, slow_model = FairScheduler(1), Model()
        slow_model.gate = asyncio.Event()
        slow = make_share(slow_model, lanes=lanes)

        async def quick_model(feeds: Feeds, names: list[str]) -> dict[str, Any]:
            return {"y": 2 * feeds["x"] + 1}

        quick = make_share(quick_model, lanes=lanes, pace=LatencyModel(0.0, QUICK_SECONDS / 100))
        held = asyncio.create_task(ask(slow, 1))
        await turns()
        assert lanes.free == 0
        assert await ask(quick, 5, 6) == [11, 13]
        assert not held.done()
        slow_model.gate.set()
        assert await held == [3]
        assert lanes.free == 1

    run(work)


@pytest.mark.parametrize(
    ("pace", "is_now"), [(None, False), (LatencyModel(0.0, QUICK_SECONDS), True), (LatencyModel(1.0, 0.0), False)]
)
def test_where_a_batch_is_computed(pace: LatencyModel | None, is_now: bool) -> None:
    """Only what is measured to be quick is computed on the event loop."""

    async def work() -> None:
        where: list[str] = []
        pool = {"pool": "gateway"}
        busy = REGISTRY.get_sample_value("lectern_slot_busy_seconds_total", pool) or 0.0

        async def compute(position: str, feeds: Feeds) -> dict[str, Any]:
            where.append(position)
            return {"y": 2 * feeds["x"] + 1}

        runner: Any = SimpleNamespace(
            run=lambda feeds, names: compute("thread", feeds), run_now=lambda feeds, names: compute("here", feeds)
        )
        predictor = make_predictor(Budget(unit="rows", batch=8, explained=1))
        share = FairScheduler(1).add(
            MicroBatcher(predictor, runner, name="fake", version="1.0.0", queue_limit=9, latency=pace)
        )
        assert await ask(share, 3) == [7]
        assert where == ["here" if is_now else "thread"]
        # The event loop is no slot.
        assert ((REGISTRY.get_sample_value("lectern_slot_busy_seconds_total", pool) or 0.0) > busy) is not is_now

    run(work)


def test_poison_among_the_quick() -> None:
    """Batches computed on the event loop are bisected like any other."""

    async def work() -> None:
        async def model(feeds: Feeds, names: list[str]) -> dict[str, Any]:
            if 13 in feeds["x"]:
                raise ValueError("private")
            return {"y": 2 * feeds["x"] + 1}

        share = make_share(model, Budget(unit="rows", batch=64, explained=1), pace=LatencyModel(0.0, 1e-9))
        answers = await asyncio.gather(*(ask(share, n) for n in range(64)), return_exceptions=True)
        for number, answer in enumerate(answers):
            assert isinstance(answer, RunnerFailed) if number == 13 else answer == [2 * number + 1]

    run(work)


def test_too_late() -> None:
    """What waits longer than its deadline is refused in time and never computed; so is what is being computed."""

    async def work() -> None:
        model = Model()
        model.gate = asyncio.Event()
        share = make_share(model, ONE_ROW, lanes=FairScheduler(1))
        started = time.monotonic()
        running = asyncio.create_task(submit(share, [1], seconds=0.05))
        await turns()
        waiting = [asyncio.create_task(submit(share, [n], seconds=0.05)) for n in (2, 3)]
        patient = asyncio.create_task(submit(share, [4], seconds=60))
        for task in (running, *waiting):
            with pytest.raises(DeadlineExceeded):
                await task
        assert time.monotonic() - started < 0.05 + 0.05
        model.gate.set()
        assert (await patient)[0]["y"] == 9
        assert model.batches == [[1], [4]]

    run(work)


def test_a_queue_of_the_dead_takes_newcomers() -> None:
    """Requests that were abandoned in a full queue do not keep others out for long."""

    async def work() -> None:
        model = Model()
        model.gate = asyncio.Event()
        share = make_share(model, ONE_ROW, queue_limit=3, lanes=FairScheduler(1))
        held = asyncio.create_task(ask(share, 0))
        await turns()
        dead = [asyncio.create_task(ask(share, n)) for n in (1, 2, 3)]
        await turns()
        for task in dead:
            task.cancel()
        await asyncio.sleep(0.05)
        newcomer = asyncio.create_task(ask(share, 4))
        await turns()
        model.gate.set()
        assert await newcomer == [9]
        await held
        assert model.batches == [[0], [4]]

    run(work)


def test_an_idle_service_does_not_wake_up() -> None:
    """When nothing waits, no timer runs."""

    async def work() -> None:
        lanes = FairScheduler(1)
        share = make_share(Model(), lanes=lanes)
        await ask(share, 1)
        await asyncio.sleep(0.05)
        assert not lanes._is_ticking
        assert not lanes.tasks

    run(work)


def test_sorted_by_length_and_nobody_starves() -> None:
    """Where padding costs, a round is sorted by length; what arrives later waits for the next round."""

    async def work() -> None:
        model = Model()
        model.gate = asyncio.Event()
        budget = Budget(unit="tokens", batch=20, explained=1, is_padded=True)
        share = make_share(model, budget, cost=lambda sample: sample, lanes=FairScheduler(1))
        held = asyncio.create_task(ask(share, 1))
        await turns()
        first = [asyncio.create_task(ask(share, n)) for n in (20, 3, 19, 2, 4)]
        await turns()
        model.gate.set()
        model.gate = None
        await turns(3)
        second = [asyncio.create_task(ask(share, n)) for n in (1, 1, 1)]
        await asyncio.gather(held, *first, *second)
        assert model.batches == [[1], [2, 3, 4], [19], [20], [1, 1, 1]]

    run(work)


def test_a_pace_is_measured() -> None:
    """Warm-up runs every size up to a full batch, and finds what a unit costs and what a batch costs beside it."""
    predictor = make_predictor(Budget(unit="rows", batch=10, explained=1))
    sizes = []

    def compute(feeds: Feeds, names: list[str]) -> dict[str, Any]:
        sizes.append(len(feeds["x"]))
        end = time.thread_time() + 0.002 + 0.001 * len(feeds["x"])
        while time.thread_time() < end:
            pass
        found = {"y": 2 * feeds["x"] + 1, "attention": np.zeros(len(feeds["x"]), np.int64)}
        return {name: found[name] for name in names}

    pace = warm_up(Predictor(card=predictor.card, assets=predictor.assets, outputs=predictor.outputs, run=compute))
    assert set(sizes) == {1, 2, 4, 8, 10}
    assert pace.unit_seconds == pytest.approx(0.001, rel=0.5)
    assert pace.base_seconds == pytest.approx(0.002, abs=0.002)
    assert pace.seconds(10) == pytest.approx(0.012, rel=0.5)
