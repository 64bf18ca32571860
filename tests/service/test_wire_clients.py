"""Clients of the short way that leave, or are slow: they hold nothing up, and leave nothing behind."""

import asyncio
import itertools
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(20)

Post = Callable[..., bytes]
PAGE = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
LIMIT_SECONDS = 0.15
# One sweep, and a slow machine.
SLACK_SECONDS = 1.0


def in_chunks(number: int) -> bytes:
    """Return a prediction that goes the long way."""
    head = b"POST /v1/models/double/predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    body = b'{"instances": [%d]}' % number
    return head + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


# Clients that leave


LEAVE: dict[str, Callable[[Any], None]] = {
    "FIN": lambda client: client.close(),
    "RST": lambda client: client.reset(),
    "half-closed": lambda client: client.finish(),
}


@pytest.mark.parametrize("leave", LEAVE)
@pytest.mark.parametrize(
    ("behind", "gone"),
    [
        (lambda post: b"", [1]),
        (lambda post: post(2) + post(3), [1, 2, 3]),
        (lambda post: post(2)[:-5], [1, 2]),
        (lambda post: post(2)[:40], [1]),
        (lambda post: PAGE, [1]),
        (lambda post: in_chunks(12) + post(3), [1]),
    ],
    ids=["alone", "pipelined", "half a body", "half the headers", "page behind", "chunks behind"],
)
def test_leaving_while_waiting(
    leave: str, behind: Any, gone: list[int], run_on_both: Any, serve: Any, post: Post
) -> None:
    """What a client asked before it left never reaches the model, is counted once, and nobody else notices."""

    async def work() -> None:
        async with serve() as live:
            first = await live.plug()
            leaver, other = await live.connect(), await live.connect()
            await leaver.send(post(1) + behind(post))
            await other.send(post(50))
            await live.until(lambda: live.endpoint.batcher.queue.backlog >= 2)
            await asyncio.sleep(0.005)
            LEAVE[leave](leaver)
            await live.until(lambda: len(live.state.connections) == 2)
            live.model.gate.set()
            assert ((await first.read()).y, (await other.read()).y) == (1, 101)
            assert (await other.ask(post(51))).y == 103
            assert live.model.seen == [0, 50, 51]
            assert await live.counted() == {"ok": 3, "disconnected": len(gone)}

    run_on_both(work)


@pytest.mark.parametrize("leave", LEAVE)
@pytest.mark.parametrize("kept", [1, 30, 90, -19, -18, -1])
def test_leaving_half_way(leave: str, kept: int, run_on_both: Any, serve: Any, post: Post) -> None:
    """A client that leaves in the middle of its request costs nothing; it counts once its headers were whole."""

    async def work() -> None:
        async with serve() as live:
            client = await live.connect()
            await client.send(post(1)[:kept])
            await asyncio.sleep(0.005)
            LEAVE[leave](client)
            await live.until(lambda: not live.state.connections)
            assert live.model.seen == []
            assert await live.counted() == ({"disconnected": 1} if -19 < kept < 0 else {})
            assert (await (await live.connect()).ask(post(2))).y == 5

    run_on_both(work)


def test_leaving_the_long_way(run_on_both: Any, serve: Any, post: Post) -> None:
    """A chunked prediction with others behind it is forgotten too when its client leaves."""

    async def work() -> None:
        async with serve() as live:
            await live.plug()
            client = await live.connect()
            await client.send(in_chunks(10) + post(2) + PAGE)
            await live.until(lambda: live.endpoint.batcher.queue.backlog == 1)
            await asyncio.sleep(0.005)
            client.reset()
            await live.until(lambda: len(live.state.connections) == 1)
            await asyncio.sleep(0.005)
            live.model.gate.set()
            await live.until(lambda: not live.endpoint.batcher.queue.backlog)
            assert live.model.seen == [0]
            assert (await live.counted())["disconnected"] == 1

    run_on_both(work)


def test_leaving_while_read_aside(run: Any, serve: Any, post: Post) -> None:
    """A long body whose client left while it was parsed never becomes a sample."""

    async def work() -> None:
        async with serve() as live:
            client = await live.connect()
            held = live.pool.submit(time.sleep, 0.5)
            await client.send(post(0, body=b'{"instances": [1]}'.ljust(70_000)))
            await asyncio.sleep(0.02)
            client.reset()
            await live.until(lambda: not live.state.connections)
            assert not held.done()
            live.pool.submit(lambda: None).result()
            await asyncio.sleep(0.005)
            assert live.model.seen == []
            assert await live.counted() == {"disconnected": 1}

    run(work)


def test_leaving_with_answers_unread(run_on_both: Any, serve: Any, post: Post) -> None:
    """A client that says goodbye without reading its answers is forgotten with what it still waits for."""

    async def work() -> None:
        async with serve(send_buffer=4096, body_timeout_seconds=LIMIT_SECONDS, queue_limit=10**6) as live:
            client = await live.connect(receive_buffer=4096)
            body = b'{"instances": [%b]}' % b",".join([b"7"] * 1000)
            await client.send(*[post(0, body=body)] * 20)
            await live.until(lambda: len(live.model.seen) == 20_000)
            await live.plug()
            await client.send(post(1))
            await asyncio.sleep(0.01)
            client.finish()
            await live.until(lambda: len(live.state.connections) == 1)
            live.model.gate.set()
            await asyncio.sleep(0.01)
            assert 1 not in live.model.seen

    run_on_both(work)


# Slow clients


async def trickle(client: Any, data: bytes) -> None:
    """Send a byte every few milliseconds until the server has enough."""
    for position in range(len(data)):
        if not client.is_silent():
            return
        try:
            await client.send(data[position : position + 1])
        except ConnectionError:
            return
        await asyncio.sleep(0.004)


def test_slow_requests(run_on_both: Any, serve: Any, post: Post) -> None:
    """Headers or a body that take too long are a 408 within the limit, and meanwhile hold no place."""
    # The long way begins only when the headers are whole.
    ways = [b"", b"expect: x\r\n"]
    cuts = itertools.product(ways, [False, True], [1, 60, -200, -1])

    async def work() -> None:
        async with serve(body_timeout_seconds=LIMIT_SECONDS, queue_limit=1) as live:

            async def late(way: bytes, is_trickling: bool, cut: int) -> None:
                data = post(1, body=b'{"instances": [1]}'.ljust(300), headers=way)
                client = await live.connect()
                started = time.monotonic()
                await client.send(data[:cut])
                trickling = asyncio.create_task(trickle(client, data[cut:-1] * is_trickling))
                (answer,) = await client.read_all()
                assert LIMIT_SECONDS * 0.9 < time.monotonic() - started < LIMIT_SECONDS + SLACK_SECONDS
                assert (answer.status, answer["connection"]) == (408, "close")
                assert (answer.json["code"], answer.json["retryable"]) == ("request_timeout", True)
                await trickling

            other = await live.connect()
            slow = asyncio.gather(*(late(*cut) for cut in cuts))
            while not slow.done():
                assert (await other.ask(post(5))).y == 11
                assert not live.endpoint.batcher.queue.backlog
                await asyncio.sleep(0.01)
            await slow
            assert 1 not in live.model.seen
            found = await live.counted()
            assert found["request_timeout"] == 8  # those whose headers were whole
            assert set(found) == {"ok", "request_timeout"}

    run_on_both(work)


def test_prompt_again(run: Any, serve: Any, post: Post) -> None:
    """Control: the limit is one request's; a connection that sends one now and then lives on."""

    async def work() -> None:
        async with serve(body_timeout_seconds=LIMIT_SECONDS) as live:
            client = await live.connect()
            for number in range(6):
                await client.send(post(number)[:50])
                await asyncio.sleep(LIMIT_SECONDS / 3)
                await client.send(post(number)[50:])
                assert (await client.read()).y == 2 * number + 1

    run(work)


@pytest.mark.parametrize("before", [b"", b"\r\n", PAGE, None], ids=["silent", "line feed", "page", "prediction"])
def test_idle(before: bytes | None, run: Any, serve: Any, post: Post) -> None:
    """A connection on which nothing is asked is closed after the keep-alive time, without a word."""

    async def work() -> None:
        async with serve(keep_alive=0.1) as live:
            client = await live.connect()
            before_or_post = post(1) if before is None else before
            await client.send(before_or_post)
            if len(before_or_post) > 2:
                assert (await client.read()).status == 200
            started = time.monotonic()
            assert await client.read() is None
            assert 0.05 < time.monotonic() - started < 0.1 + SLACK_SECONDS

    run(work)


def test_idle_from_the_start(run_on_both: Any, serve: Any) -> None:
    """A connection is swept also when it is made between two sweeps, one of which found none."""

    async def work() -> None:
        async with serve(keep_alive=0.05) as live:
            wire = live.make_protocol()
            await asyncio.sleep(0.05)
            mine, other = socket.socketpair()
            with mine:
                mine.setblocking(False)
                await asyncio.get_running_loop().connect_accepted_socket(lambda: wire, other)
                async with asyncio.timeout(0.05 + SLACK_SECONDS):
                    assert await asyncio.get_running_loop().sock_recv(mine, 1) == b""

    run_on_both(work)


def test_slow_behind_waiting(run_on_both: Any, serve: Any, post: Post) -> None:
    """A body that is late behind an answer that is owed: the answer, the 408, and nothing more, whatever comes."""

    async def work() -> None:
        async with serve(body_timeout_seconds=LIMIT_SECONDS) as live:
            await live.plug()
            client = await live.connect()
            await client.send(post(1) + post(2)[:-5])
            await asyncio.sleep(LIMIT_SECONDS + 0.1)
            assert client.is_silent()
            await client.send(post(2)[-5:] + post(3) + PAGE + post(4))
            await asyncio.sleep(0.01)
            live.model.gate.set()
            first, late = await client.read_all()
            assert (first.y, late.status, late["connection"]) == (3, 408, "close")
            assert live.model.seen == [0, 1]
            assert live.long_ways == 0
            assert await live.counted() == {"ok": 2, "request_timeout": 1}

    run_on_both(work)


@pytest.mark.parametrize("cut", [-5, 40])
def test_not_late_by_our_fault(cut: int, run: Any, serve: Any, post: Post) -> None:
    """A request that the server itself did not go on reading, because much was owed, is not late."""

    async def work() -> None:
        async with serve(body_timeout_seconds=LIMIT_SECONDS) as live:
            await live.plug()
            client = await live.connect()
            stream = b"".join(map(post, range(100, 200)))
            begun = len(stream) + len(post(7)) + cut if cut < 0 else len(stream) + cut
            stream += post(7) + post(8)
            await client.send(stream[:begun], stream[begun:])
            await asyncio.sleep(LIMIT_SECONDS + 0.1)
            live.model.gate.set()
            assert [(await client.read()).y for _ in range(102)] == [*range(201, 401, 2), 15, 17]

    run(work)


@pytest.mark.parametrize("whole", [62, 63, 64, 65])
@pytest.mark.parametrize("cut", [-5, -18, -19, 40])
def test_cut_anywhere(whole: int, cut: int, run_on_both: Any, serve: Any, post: Post) -> None:
    """However many answers are owed when a request is cut in two, its rest is read and answered."""

    async def work() -> None:
        async with serve(body_timeout_seconds=1) as live:
            client = await live.connect()
            stream = b"".join(map(post, range(whole)))
            await client.send(stream + post(7)[:cut])
            await asyncio.sleep(0.002)
            await client.send(post(7)[cut:])
            assert [(await client.read()).y for _ in range(whole + 1)] == [*range(1, 2 * whole, 2), 15]

    run_on_both(work)
