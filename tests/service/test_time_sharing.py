"""Long bodies share threads: whoever had least goes first, 504 comes in time, and nothing is done for who has left."""

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import FrameType, TracebackType
from typing import Any

import pytest

from service.inference.time_sharing import TimeSharingPool

Post = Callable[..., bytes]
MANY = b'{"instances": [%s]}' % b",".join([b"1"] * 100)


@pytest.fixture
def one_thread() -> Iterator[TimeSharingPool]:
    """A single thread to share."""
    pool = ThreadPoolExecutor(1)
    yield TimeSharingPool(pool)
    pool.shutdown()


@pytest.fixture(autouse=True)
def single_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice of time is one step."""
    monkeypatch.setattr("service.inference.time_sharing.SLICE_SECONDS", -1.0)


def test_whoever_had_least_goes_first(one_thread: TimeSharingPool) -> None:
    """What comes in the middle of something long is done before the rest of it, and what came first before that."""
    order: list[str] = []
    has_begun, may_go_on = threading.Event(), threading.Event()

    def long() -> Iterator[None]:
        has_begun.set()
        may_go_on.wait(5)
        for _ in range(50):
            order.append("long")
            yield

    def short(name: str) -> Iterator[None]:
        order.append(name)
        yield

    async def work() -> None:
        long_one = one_thread.run(long())
        await asyncio.to_thread(has_begun.wait, 5)
        shorts = [one_thread.run(short("first")), one_thread.run(short("second"))]
        may_go_on.set()
        await asyncio.gather(long_one, *shorts)

    asyncio.run(work())
    assert order == ["long", "first", "second", *["long"] * 49]


def test_an_error_is_told(one_thread: TimeSharingPool) -> None:
    """Who waits hears what went wrong, and the thread lives on."""

    def broken() -> Iterator[None]:
        yield
        raise ValueError("no")

    async def work() -> None:
        with pytest.raises(ValueError, match="no"):
            await one_thread.run(broken())
        await one_thread.run(iter((None, None)))

    asyncio.run(work())


class Gated:
    """Validates one instance for each permit."""

    def __init__(self, live: Any) -> None:
        self.seen, self.permits = 0, threading.Semaphore(0)
        predictor = live.endpoint.predictor
        live.endpoint.predictor = replace(predictor, card=replace(predictor.card, validate=self.validate))

    def validate(self, instance: Any, assets: Any) -> Iterator[Any]:
        self.seen += 1
        assert self.permits.acquire(timeout=5)
        return iter(())


@pytest.mark.parametrize("is_wired", [True, False])
def test_504_in_time(run: Any, serve: Any, post: Post, is_wired: bool) -> None:
    """A request that is still being prepared is answered when its time is over, and no instance more is looked at."""

    async def work() -> None:
        async with serve(wire=is_wired) as live:
            gated, client = Gated(live), await live.connect()
            answer = await client.ask(post(0, body=MANY, headers=b"x-request-timeout-ms: 50\r\n"))
            assert (answer.status, answer.json["code"]) == (504, "deadline_exceeded")
            gated.permits.release(1000)
            await asyncio.to_thread(live.pool.submit(int).result, 5)
            assert gated.seen == 1

    run(work)


@pytest.mark.parametrize("is_wired", [True, False])
def test_nothing_is_done_for_who_has_left(run: Any, serve: Any, post: Post, is_wired: bool) -> None:
    """When the caller is gone no instance more is looked at."""

    async def work() -> None:
        async with serve(wire=is_wired) as live:
            gated, client = Gated(live), await live.connect()
            await client.send(post(0, body=MANY))
            gated.permits.release(3)
            await live.until(lambda: gated.seen == 4)
            client.close()
            await live.until(lambda: not live.state.connections)
            gated.permits.release(1000)
            await asyncio.to_thread(live.pool.submit(int).result, 5)
            assert gated.seen == 4
            assert await live.counted() == {"disconnected": 1}

    run(work)


def test_long_bodies_take_turns(run: Any, serve: Any, post: Post) -> None:
    """A long body that came later is answered while an endless one of another caller is still being prepared."""

    async def work() -> None:
        async with serve() as live:
            gated, endless, other = Gated(live), await live.connect(), await live.connect()
            await endless.send(post(0, body=MANY))
            await live.until(lambda: gated.seen == 1)
            await other.send(post(0, body=b'{"instances": [1]}'.ljust(2**17)))
            await live.until(lambda: len(live.front.gateway.preparation.waiting) == 1)
            gated.permits.release(30)
            answer = await other.read()
            assert answer is not None
            assert answer.y == 3
            assert endless.is_silent()
            gated.permits.release(1000)
            assert len((await endless.read()).json["predictions"]) == 100

    run(work)


@pytest.mark.parametrize("is_wired", [True, False])
@pytest.mark.parametrize("path", [b"/v1/models/double/predict", b"/v2/models/double/infer"])
def test_a_refused_body_is_let_go(run: Any, serve: Any, post: Post, path: bytes, is_wired: bool) -> None:
    """No error ties the body that it is about to itself, where only the garbage collector would find it."""

    async def work() -> None:
        async with serve(wire=is_wired) as live:
            client = await live.connect()
            request = post(0, body=b'{"inputs": 1}'.ljust(2**17)).replace(b"/v1/models/double/predict", path)
            assert (await client.ask(request)).status in (400, 404, 422)
            gc.collect()
            gc.disable()
            try:
                assert (await client.ask(request)).status in (400, 404, 422)
                await live.until(lambda: live.front.gateway.body_memory.held == 0)
                await asyncio.sleep(0.01)
                gc.set_debug(gc.DEBUG_SAVEALL)
                gc.collect()
                tied = [one for one in gc.garbage if isinstance(one, (BaseException, FrameType, TracebackType))]
            finally:
                gc.set_debug(0)
                gc.garbage.clear()
                gc.enable()
            assert not tied

    run(work)
