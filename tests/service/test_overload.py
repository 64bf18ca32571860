"""How long a turn is waited for: what is expected, who is refused for it, and what is not begun any more."""

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest

from models.budget import Budget
from models.errors import DeadlineExceeded
from models.runtime.predictor import LatencyModel, Predictor
from service.inference import request_queue
from service.inference.batcher import MicroBatcher
from service.inference.request_queue import ANSWERED, STREAK, STREAKS, PendingRequest
from service.inference.scheduler import FairScheduler, Share
from service.telemetry.metrics import BROKEN


class Asked(PendingRequest):
    """A request of so many samples."""

    def __init__(self, count: int = 1, deadline: float = 1e9) -> None:
        super().__init__()
        self.samples, self.deadline, self.result = [1] * count, deadline, None

    result: Any

    def finish(self, result: Any) -> None:
        self.ended, self.result = BROKEN if isinstance(result, Exception) else ANSWERED, result


class Clock:
    """Time as the test says."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(request_queue, "monotonic", made)
    return made


@pytest.fixture
def share(monkeypatch: pytest.MonkeyPatch, double_card: Any) -> Share:
    """Eight rows a batch, two seconds each by its first guess; it computes when the test says."""
    monkeypatch.setattr(FairScheduler, "call", lambda lanes, share: None)
    runner: Any = None
    assets: Any = None
    card = replace(double_card, budget=Budget(unit="rows", batch=8, explained=1))
    predictor = Predictor(card=card, assets=assets, outputs=frozenset("y"), run=lambda feeds, names: {})
    batcher = MicroBatcher(
        predictor, runner, name="fake", version="1.0.0", queue_limit=10_000, latency=LatencyModel(1.0, 0.125)
    )
    return FairScheduler(1).add(batcher)


def test_the_first_guess(share: Share, clock: Clock) -> None:
    """Before anything was computed, a turn takes what warm-up said: eight rows in two seconds."""
    assert share.batcher.queue.wait_seconds == 0
    for count in (8, 8, 4):
        share.submit(Asked(count))
    assert (share.batcher.queue.units, share.batcher.queue.wait_seconds) == (20, 5.0)
    assert len(share.batcher.queue.next_batch()) == 8
    assert (share.batcher.queue.units, share.batcher.queue.wait_seconds) == (12, 3.0)


def test_a_pace_is_learned(share: Share, clock: Clock) -> None:
    """Full batches in a row tell; of the last streaks the shortest counts, so one that was held up says nothing."""
    share.submit(Asked(5000))

    def compute(batches: int, seconds: float) -> None:
        for _ in range(batches):
            share.batcher.queue.next_batch()
            clock.now += seconds

    compute(STREAKS * STREAK, 0.5)
    compute((STREAKS - 1) * STREAK, 4.0)
    assert share.batcher.queue.unit_seconds == pytest.approx(0.5 / 8)
    compute(STREAK, 0.8)
    share.batcher.queue.next_batch()
    assert share.batcher.queue.unit_seconds == pytest.approx(0.8 / 8)


@pytest.mark.parametrize("rows", [1, 3])
def test_small_batches_tell_nothing(share: Share, clock: Clock, rows: int) -> None:
    """Where little waits batches are small, and a row takes longer than it would in a full one."""
    guess = share.batcher.queue.unit_seconds
    for _ in range(STREAKS * STREAK * 3):
        share.submit(Asked(rows))
        share.batcher.queue.next_batch()
        clock.now += 5.0
    assert share.batcher.queue.unit_seconds == guess


def test_idle_time_tells_nothing(share: Share, clock: Clock) -> None:
    """Between two bursts nothing waits, so that is no pace."""
    guess = share.batcher.queue.unit_seconds
    for _ in range(STREAKS * STREAK * 3):
        share.submit(Asked(8))
        share.batcher.queue.next_batch()
        assert share.batcher.queue.next_batch() == []
        clock.now += 100.0
    assert share.batcher.queue.unit_seconds == guess


def test_too_late_to_begin(share: Share, clock: Clock) -> None:
    """What could not be ready in time is refused instead of computed; a batch of eight takes two seconds."""
    late, early = Asked(4, clock.now + 1.9), Asked(4, clock.now + 2.1)
    share.submit(late)
    share.submit(early)
    assert {entry[0] for entry in share.batcher.queue.next_batch()} == {early}
    assert isinstance(late.result, DeadlineExceeded)
    assert early.result is None


def test_nobody_left(share: Share, clock: Clock) -> None:
    """When all are too late the queue is empty, and counts as such."""
    share.submit(Asked(8, clock.now + 0.1))
    assert share.batcher.queue.next_batch() == []
    assert (share.batcher.queue.units, share.batcher.queue.backlog) == (0, 0)


def test_refused_at_arrival(run_on_both: Any, serve: Any, post: Any) -> None:
    """Who would wait too long is refused before the body is looked at; by the deployment's limit, or the caller's."""

    async def work() -> None:
        async with serve(queue_seconds=1.0) as live:
            first, waiting, client = await live.plug(), await live.connect(), await live.connect()
            live.endpoint.share.batcher.queue.unit_seconds = 0.4
            await waiting.send(post(1))
            await live.until(lambda: live.endpoint.share.batcher.queue.units == 1)
            refused = await client.ask(post(2, headers=b"x-request-timeout-ms: 799\r\n", body=b"{"))
            assert (refused.status, refused.json["code"]) == (503, "overloaded")
            assert int(refused["retry-after"]) >= 1
            await client.send(post(3, headers=b"x-request-timeout-ms: 1700\r\n"))
            await live.until(lambda: live.endpoint.share.batcher.queue.units == 2)
            other = await live.connect()
            await other.send(post(4))
            await live.until(lambda: live.endpoint.share.batcher.queue.units == 3)
            last = await live.connect()
            assert (await last.ask(post(5))).status == 503
            live.endpoint.share.batcher.queue.unit_seconds = 0.0
            live.model.gate.set()
            assert [(await one.read()).y for one in (first, waiting, client, other)] == [1, 3, 7, 9]
            assert await live.counted() == {"ok": 4, "overloaded": 2}

    run_on_both(work)


def test_a_lone_request_is_never_refused(run: Any, serve: Any, post: Any) -> None:
    """However slow the model seems: where nobody waits, there is nothing to wait for."""

    async def work() -> None:
        async with serve(queue_seconds=0.001) as live:
            client = await live.connect()
            live.endpoint.share.batcher.queue.unit_seconds = 1e-6
            for _ in range(3):
                assert (await client.ask(post(4))).y == 9
                await asyncio.sleep(0)

    run(work)


@pytest.mark.parametrize("chunked", [False, True])
def test_long_bodies_share_their_room(chunked: bool, run_on_both: Any, serve: Any, post: Any) -> None:
    """Long bodies that are arriving take no more memory than allowed; who exceeds it is refused, the others finish."""
    content = b'{"instances": [%s]}' % b",".join([b"1" * 9] * 20_000)
    kind = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % len(content)
    head = b"POST /v1/models/double/predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n%b\r\n\r\n" % kind

    def part(piece: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece

    async def work() -> None:
        limits = {"max_arriving_bytes": 300_000, "max_instances": 20_000, "queue_limit": 10**6, "queue_seconds": 1e6}
        async with serve(**limits) as live:
            gateway = live.front.gateway
            first, second, third = [await live.connect() for _ in range(3)]
            await second.send(head)
            await first.send(head + part(content[:150_000]))
            await live.until(lambda: gateway.body_memory.held == 150_000)
            await second.send(part(content[:140_000]))
            await live.until(lambda: gateway.body_memory.held == 290_000)
            assert (await third.ask(post(4))).y == 9  # a short one needs no room
            await second.send(part(content[140_000:155_000]))
            refused = await second.read()
            assert (refused.status, refused.json["code"], refused["connection"]) == (503, "overloaded", "close")
            await live.until(lambda: gateway.body_memory.held == 150_000)
            await first.send(part(content[150_000:]) + (b"0\r\n\r\n" if chunked else b""))
            assert (await first.read()).status == 200
            await third.send(head + part(content[:150_000]))
            await live.until(lambda: gateway.body_memory.held == 150_000)
            third.reset()
            await live.until(lambda: gateway.body_memory.held == 0)

    run_on_both(work)


@pytest.mark.parametrize("is_wired", [True, False])
@pytest.mark.parametrize("path", [b"/v1/models/double/predict", b"/v2/models/double/infer"])
def test_whole_bodies_have_their_room(run_on_both: Any, serve: Any, post: Any, path: bytes, is_wired: bool) -> None:
    """Long bodies that wait to be read count until they are; who says that he has more is refused before he sends it.

    Whoever has left or is too late makes room as well, once a thread has let go of what is his.
    """
    long = post(0, body=b'{"instances": [4]}'.ljust(150_000)).replace(b"/v1/models/double/predict", path)
    head = long[: -150_000 + 10]

    async def work() -> None:
        async with serve(wire=is_wired, max_arriving_bytes=310_000, max_body_bytes=310_000) as live:
            held, busy = live.front.gateway.body_memory, threading.Event()
            thread = live.pool.submit(busy.wait, 10)
            clients = [await live.connect() for _ in range(4)]
            await clients[0].send(long)
            await live.until(lambda: held.held == 150_000)
            late = long.replace(b"\r\nhost", b"\r\nx-request-timeout-ms: 300\r\nhost")
            await clients[1].send(late)
            await live.until(lambda: held.held == 300_000)
            refused = await clients[2].ask(head)
            assert (refused.status, refused.json["code"], refused["connection"]) == (503, "overloaded", "close")
            assert refused["retry-after"] is not None
            assert (await clients[3].ask(post(4))).y == 9  # a short one needs no room
            clients[0].reset()
            assert (await clients[1].read()).status == 504
            assert held.held == 300_000  # they are still held
            busy.set()
            await asyncio.wrap_future(thread)
            await live.until(lambda: held.held == 0)
            assert (await clients[3].ask(long)).status == (200 if b"v1" in path else 400)
            assert (await clients[3].ask(post(0, body=b"{".ljust(310_000)))).status == 400  # the longest there may be
            await live.until(lambda: held.held == 0)

    run_on_both(work)


@pytest.mark.parametrize("is_wired", [True, False])
def test_nothing_counts_after_a_storm(run_on_both: Any, serve: Any, post: Any, is_wired: bool) -> None:
    """Whole, broken, given up, refused, late, or while the service stops: however bodies end, none stays counted."""
    whole = post(0, body=b'{"instances": [4]}'.ljust(100_000))
    late = whole.replace(b"\r\nhost", b"\r\nx-request-timeout-ms: 1\r\nhost")
    broken, half = whole.replace(b"[4]", b"[x]"), whole[:80_000]
    many = post(0, body=b'{"instances": [%s]}' % b",".join([b"1"] * 100))

    async def storm(live: Any, requests: list[bytes]) -> None:
        clients = [await live.connect() for _ in range(len(requests))]
        await asyncio.gather(*(client.send(one) for client, one in zip(clients, requests, strict=True)))
        for client in clients[::3]:
            client.reset()

    async def work() -> None:
        limits = {"max_arriving_bytes": 400_000, "max_body_bytes": 400_000, "body_timeout_seconds": 0.3}
        async with serve(wire=is_wired, **limits) as live:
            held = live.front.gateway.body_memory
            for _ in range(3):
                await storm(live, [whole, late, broken, half, many] * 4)
            await live.until(lambda: held.held == 0)
            live.front.gateway.is_draining = True
            await storm(live, [whole, many] * 4)
            await live.until(lambda: held.held == 0)

    run_on_both(work)


def test_a_large_request_lets_others_by(share: Share, clock: Clock) -> None:
    """A request of a hundred samples has one batch in each round; who comes later has his turn in the next."""
    large, small = Asked(100), Asked(2)
    share.submit(large)
    queue = share.batcher.queue
    assert (queue.units, queue.backlog) == (8, 100)  # what a newcomer waits for, and what there is room for
    assert [entry[0] for entry in share.batcher.queue.next_batch()] == [large] * 8
    share.submit(small)
    assert [entry[0] for entry in share.batcher.queue.next_batch()] == [large] * 8
    assert [entry[0] for entry in share.batcher.queue.next_batch()] == [small] * 2
    positions = []
    while share.batcher.queue.has_work:
        positions += [entry[1] for entry in share.batcher.queue.next_batch()]
    assert positions == [*range(16, 100)]
    assert (share.batcher.queue.units, share.batcher.queue.backlog) == (0, 0)


def test_a_large_request_that_is_too_late(share: Share, clock: Clock) -> None:
    """What could not be computed in time is refused at arrival; a large one that is late later leaves nothing."""
    with pytest.raises(DeadlineExceeded):
        share.submit(Asked(100, clock.now + 24))
    late = Asked(100, clock.now + 26)
    share.submit(late)
    share.batcher.queue.next_batch()
    clock.now += 30
    share.batcher.queue.expire(clock.now)
    assert isinstance(late.result, DeadlineExceeded)
    assert not share.batcher.queue.has_work
    assert (share.batcher.queue.units, share.batcher.queue.backlog) == (0, 0)


def test_refusing_has_its_share_of_time(
    run_on_both: Any, serve: Any, post: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was refused is read again when its turn comes, a few connections at a time; the others are not kept."""
    monkeypatch.setattr("service.server.refusal_backoff.TICK_SECONDS", 0.05)
    monkeypatch.setattr("service.server.refusal_backoff.EACH_TICK", 2)

    async def work() -> None:
        async with serve(queue_limit=1) as live:
            first, waiting = await live.plug(), await live.connect()
            await waiting.send(post(1))
            await live.until(lambda: live.endpoint.share.batcher.queue.backlog == 1)
            refused = [await live.connect() for _ in range(5)]
            for client in refused:
                assert (await client.ask(post(2))).status == 503
            cooling = live.front.context().backoff
            assert len(cooling.waiting) == 5
            live.model.gate.set()
            assert [(await client.read()).y for client in (first, waiting)] == [1, 3]
            assert (await first.ask(post(3))).y == 7  # answered at once: it was never refused
            assert len(cooling.waiting) == 5
            live.endpoint.share.batcher.queue.room = live.endpoint.share.batcher.queue.limit = 9
            for client in refused:
                await client.send(post(4))
            await live.until(lambda: len(cooling.waiting) == 3)
            assert [(await client.read()).y for client in refused] == [9] * 5
            assert not cooling.waiting

    run_on_both(work)
