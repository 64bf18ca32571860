"""How much the short way keeps for a client, and for how long; what it refuses; and how the server stops."""

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from service.server.connection import SLICE_BYTES, SLICES_IN_A_TURN

pytestmark = pytest.mark.timeout(20)

Post = Callable[..., bytes]
PAGE = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
LIMIT_SECONDS = 0.15
# One sweep, and a slow machine.
SLACK_SECONDS = 1.0


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def in_chunks(number: int) -> bytes:
    """Return a prediction that goes the long way."""
    head = b"POST /v1/models/double/predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    body = b'{"instances": [%d]}' % number
    return head + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


# Clients that do not read


def many(number: int) -> bytes:
    return b'{"instances": [%b]}' % b",".join([b"%d" % number] * 1000)


def test_never_reading(run_on_both: Any, serve: Any, post: Post) -> None:
    """From a client that does not read nothing more is read, little is kept for it, and in the end it is cut off."""

    async def work() -> None:
        limits = {"send_buffer": 4096, "body_timeout_seconds": 0.3, "queue_limit": 10**6, "queue_seconds": 1e6}
        async with serve(**limits) as live:
            client = await live.connect(receive_buffer=4096)
            (wire,) = live.state.connections
            request, sent, most = post(0, body=many(7)), 0, 0
            started = time.monotonic()
            while live.state.connections and time.monotonic() - started < 4:
                try:
                    async with asyncio.timeout(0.02):
                        await client.send(request)
                        sent += len(request)
                except TimeoutError:
                    pass
                except ConnectionError:
                    break
                most = max(most, wire.transport.get_write_buffer_size())
            assert not live.state.connections
            assert 0.25 < time.monotonic() - started < 0.3 + 2 * SLACK_SECONDS
            # What was read before the limit was noticed: at most 64 requests, or one buffer of the socket.
            assert most < 2 * 2**20
            assert sent < 8 * 2**20
            assert (await (await live.connect()).ask(post(2))).y == 5

    run_on_both(work)


def test_never_reading_the_end(run_on_both: Any, serve: Any, post: Post) -> None:
    """Nor does it help not to read and to say goodbye, or nothing: the connection does not stay for ever."""

    async def work() -> None:
        # Long enough for all answers to be ready before the limit cuts the client off.
        limits = {"send_buffer": 4096, "body_timeout_seconds": 1.5, "queue_limit": 10**6, "queue_seconds": 1e6}
        async with serve(keep_alive=LIMIT_SECONDS, **limits) as live:
            for how, answers in itertools.product(("last", "FIN", "idle"), (2, 40)):
                client = await live.connect(receive_buffer=4096)
                await client.send(*[post(0, body=many(7))] * answers, post(0, body=many(7), close=how == "last"))
                await live.until(lambda most=1000 * (answers + 1): len(live.model.seen) >= most)
                live.model.seen.clear()
                (wire,) = (wire for wire in live.state.connections if wire.client == client.socket.getsockname())
                await live.until(lambda wire=wire: not wire.unanswered)
                assert wire not in live.state.connections or wire.transport.get_write_buffer_size() > 0
                if how == "FIN":
                    client.finish()
            await live.until(lambda: not live.state.connections, 1.5 + LIMIT_SECONDS + SLACK_SECONDS)

    run_on_both(work)


@pytest.mark.parametrize("close", [False, True])
def test_steadily_reading(close: bool, run: Any, serve: Any, post: Post) -> None:
    """Control: a client that reads slowly, but reads on, gets everything, however long it takes."""

    async def work() -> None:
        limits = {"send_buffer": 32768, "body_timeout_seconds": LIMIT_SECONDS}
        async with serve(**limits, queue_limit=10**6, queue_seconds=1e6) as live:
            client = await live.connect(receive_buffer=32768)
            await client.send(*[post(0, body=many(7))] * 59, post(0, body=many(7), close=close))
            started, received = time.monotonic(), 0
            while received < 60 * 9000:
                part = await asyncio.get_running_loop().sock_recv(client.socket, 8_000)
                assert part, f"cut off after {received} bytes, {time.monotonic() - started:.2f} seconds"
                received += len(part)
                await asyncio.sleep(0.003)
            assert time.monotonic() - started > LIMIT_SECONDS

    run(work)


def test_reading_while_more_comes(run_on_both: Any, serve: Any, post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that reads is not cut off because its answers become ready faster; one that stops reading is."""
    monkeypatch.setattr("service.server.protocol_factory.SWEEP_SECONDS", 1000)
    loop = asyncio.get_running_loop

    async def work() -> None:
        async with serve(send_buffer=4096, body_timeout_seconds=100, queue_limit=10**6, queue_seconds=1e6) as live:
            client = await live.connect(receive_buffer=4096)
            (wire,) = live.state.connections
            await client.send(*[post(0, body=many(7))] * 60)
            await live.until(lambda: wire.transport.get_write_buffer_size() > 65536)
            live.model.gate.clear()
            now = time.monotonic()
            wire.sweep(now)
            before = wire.transport.get_write_buffer_size()
            for _ in range(20):
                assert await loop().sock_recv(client.socket, 4096)
                await turns(3)
            live.model.gate.set()
            await live.until(lambda: wire.transport.get_write_buffer_size() > before + 20_000)
            wire.sweep(now + 101)
            await turns(3)
            assert wire in live.state.connections
            wire.sweep(now + 202.5)
            await live.until(lambda: not live.state.connections)

    run_on_both(work)


def test_long_bodies_wait_outside(run_on_both: Any, serve: Any, post: Post) -> None:
    """Bodies that wait to be parsed are bounded in bytes: with a few of the longest owed, no more are read."""

    async def work() -> None:
        async with serve(max_body_bytes=2**20) as live:
            client, release = await live.connect(), threading.Event()
            live.pool.submit(release.wait, 5)
            try:
                request, sent = post(0, body=b'{"instances": [1]}'.ljust(2**20)), 0
                with contextlib.suppress(TimeoutError):
                    while sent < 40:
                        async with asyncio.timeout(0.1):
                            await client.send(request)
                            sent += 1
                assert sent < 20  # a dozen of them are in the sockets' buffers
            finally:
                release.set()
            assert [(await client.read()).y for _ in range(sent)] == [3] * sent

    run_on_both(work)


def test_slowly_reading(run: Any, serve: Any, post: Post) -> None:
    """Control: a client that reads late, but within the limit, gets everything."""

    async def work() -> None:
        async with serve(send_buffer=4096, body_timeout_seconds=1, queue_limit=10**6, queue_seconds=1e6) as live:
            client = await live.connect(receive_buffer=4096)
            sending = asyncio.create_task(client.send(*[post(0, body=many(n)) for n in range(100)]))
            await asyncio.sleep(0.1)
            for number in range(100):
                answer = await client.read()
                assert answer.status == 200, answer.body
                assert answer.json["predictions"] == [{"y": 2 * number + 1}] * 1000
            await sending

    run(work)


# Limits of the service


@pytest.mark.parametrize("owed", ["nothing", "short way", "long way"])
def test_endless_headers(owed: str, run_on_both: Any, serve: Any, post: Post) -> None:
    """Headers that never end are refused after some kilobytes, behind the answers that are owed."""

    async def work() -> None:
        async with serve() as live:
            await live.plug()
            client = await live.connect()
            await client.send({"nothing": b"", "short way": post(1), "long way": in_chunks(1)}[owed])
            await client.send(b"POST /v1/models/double/predict HTTP/1.1\r\nx: ")
            for _ in range(5):
                await asyncio.sleep(0.002)
                await client.send(b"y" * 2**14)
            if owed != "nothing":
                await asyncio.sleep(0.02)
                assert client.is_silent()
            live.model.gate.set()
            *before, refused = await client.read_all()
            assert [answer.y for answer in before] == [3] * (owed != "nothing")
            assert (refused.status, refused.json["code"]) == (431, "headers_too_large")
            assert [answer["connection"] for answer in (*before, refused)] == [None] * len(before) + ["close"]

    run_on_both(work)


BESIDE_BODIES = {
    "trailers": b"2\r\n{}\r\n0\r\n" + b"a: b\r\n" * 100_000,
    "a trailer": b"2\r\n{}\r\n0\r\na: " + b"b" * 600_000,
    "the name of a trailer": b"2\r\n{}\r\n0\r\n" + b"b" * 600_000,
    "an extension": b"2;" + b"a" * 600_000,
    "many extensions": b"1;a=%b\r\n \r\n" % (b"b" * 500) * 1200,
    "the last extension": b"2\r\n{}\r\n0;" + b"a" * 600_000,
    "zeros before a size": b"0" * 600_000,
}


@pytest.mark.parametrize("wire", [True, False])
@pytest.mark.parametrize("line", [b"POST /v1/models/double/predict", b"GET /v1/models", b"PUT /nothing"])
@pytest.mark.parametrize("name", BESIDE_BODIES)
def test_endless_beside_bodies(name: str, line: bytes, wire: bool, run: Any, serve: Any, post: Post) -> None:
    """What belongs to chunks and is no body is counted with the headers, whoever reads the body or nobody does."""

    async def work() -> None:
        async with serve(wire=wire) as live:
            client = await live.connect()
            await client.send(line + b" HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n")
            await client.send(b"transfer-encoding: chunked\r\n\r\n")
            await live.until(lambda: live.long_ways == 1)
            (connection,) = live.state.connections
            with contextlib.suppress(ConnectionError):
                for start in range(0, len(BESIDE_BODIES[name]), 10_000):
                    await client.send(BESIDE_BODIES[name][start : start + 10_000])
                    await asyncio.sleep(0)
                    assert connection.headers == []
            *before, refused = await client.read_all()
            assert [answer.status for answer in before] == (
                [] if b"double" in line else [200 if b"GET" in line else 404]
            )
            assert (refused.status, refused.json["code"], refused["connection"]) == (431, "headers_too_large", "close")
            assert (await (await live.connect()).ask(post(1))).y == 3

    run(work)


@pytest.mark.parametrize("before", [b"", b"x: " + b"y" * 5000 + b"\r\n"])
def test_many_headers(before: bytes, run_on_both: Any, serve: Any) -> None:
    """Of headers that are very many few are kept, also while the rest of them is still to come."""

    async def work() -> None:
        async with serve() as live:
            client = await live.connect()
            (connection,) = live.state.connections
            await client.send(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n" + before)
            for _ in range(40):
                with contextlib.suppress(ConnectionError):
                    await client.send(b"a:\r\n" * 100)
                await asyncio.sleep(0)
                assert len(connection.headers or ()) < 1000
            (refused,) = await client.read_all()
            assert (refused.status, refused.json["code"]) == (431, "headers_too_large")

    run_on_both(work)


@pytest.mark.parametrize("wish", [b"", b"connection: upgrade\r\nupgrade: h2c\r\n"])
def test_a_turn_is_a_few_slices(wish: bytes, run_on_both: Any, serve: Any, post: Post) -> None:
    """Of requests that lie ready and are answered at once a few slices are looked at before others have their turn."""

    async def work() -> None:
        async with serve() as live:
            await live.connect()
            (wire,) = live.state.connections
            stream = post(0, body=b"{", headers=wish) * 400
            wire.data_received(stream)
            looked_at = len(stream) - len(wire.flow.rest)
            assert 0 < looked_at <= (SLICES_IN_A_TURN + 1) * SLICE_BYTES
            assert wire.flow.is_held

    run_on_both(work)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_many_chunks(size: int, run: Any, serve: Any) -> None:
    """Control: however small its chunks are, a body is no header."""
    body = b'{"instances": [1]}'.ljust(300_000 if size > 1 else 100_000)
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in cut(body, size))

    async def work() -> None:
        async with serve() as live:
            client = await live.connect()
            head = b"POST /v1/models/double/predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            await client.send(head + b"transfer-encoding: chunked\r\n\r\n", chunks, b"0\r\na: b\r\n\r\n")
            assert (await client.read()).y == 3

    run(work)


def cut(body: bytes, size: int) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]


@pytest.mark.parametrize("owed", [False, True])
def test_long_and_broken_headers(owed: bool, run_on_both: Any, serve: Any, post: Post) -> None:
    """Headers that are too long and broken get one complaint, not two."""

    async def work() -> None:
        async with serve() as live:
            await live.plug()
            client = await live.connect()
            await client.send(post(1) * owed + b"POST /v1/models/double/predict HTTP/1.1\r\nx: y", b"\x00" * 70_000)
            await asyncio.sleep(0.01)
            live.model.gate.set()
            try:
                answers = await client.read_all()
            except AssertionError:  # what was read away may take the end of the complaint along
                assert client.is_reset
            else:
                assert [answer.status for answer in answers] == [200] * owed + [400] or client.is_reset

    run_on_both(work)


def test_too_late(run: Any, serve: Any, post: Post) -> None:
    """A request whose own time limit has passed is a 504, and never reaches the model afterwards."""

    async def work() -> None:
        async with serve() as live:
            first, client = await live.plug(), await live.connect()
            hurried = post(1, headers=b"x-request-timeout-ms: 50\r\n")
            started = time.monotonic()
            await client.send(hurried + post(2))
            answer = await client.read()
            assert 0.04 < time.monotonic() - started < 0.05 + SLACK_SECONDS
            assert (answer.status, answer.json["code"]) == (504, "deadline_exceeded")
            live.model.gate.set()
            assert ((await first.read()).y, (await client.read()).y) == (1, 5)
            assert live.model.seen == [0, 2]
            assert await live.counted() == {"ok": 2, "deadline_exceeded": 1}

    run(work)


@pytest.mark.parametrize("body", [None, b"{", b"x" * 70_000])
def test_full_queue(body: bytes | None, run: Any, serve: Any, post: Post) -> None:
    """A full queue is a 503 that says when to come again, before the body is looked at."""

    async def work() -> None:
        async with serve(queue_limit=2) as live:
            first, waiting, client = await live.plug(), await live.connect(), await live.connect()
            await waiting.send(post(1) + post(2))
            await live.until(lambda: live.endpoint.batcher.queue.backlog == 2)
            for _ in range(3):
                answer = await client.ask(post(3, body=body))
                assert (answer.status, answer.json["code"]) == (503, "overloaded")
                assert 1 <= int(answer["retry-after"]) <= 3
                assert answer["connection"] is None
            live.model.gate.set()
            assert [(await client.read()).y for client in (first, waiting, waiting)] == [1, 3, 5]
            assert (await client.ask(post(3))).y == 7
            assert await live.counted() == {"ok": 4, "overloaded": 3}

    run(work)


def test_abandoned_make_room(run: Any, serve: Any, post: Post) -> None:
    """What clients that left had queued does not keep the queue full."""

    async def work() -> None:
        async with serve(queue_limit=2) as live:
            first, leaver, client = await live.plug(), await live.connect(), await live.connect()
            await leaver.send(post(1) + post(2))
            await live.until(lambda: live.endpoint.batcher.queue.backlog == 2)
            leaver.reset()
            await live.until(lambda: not live.endpoint.batcher.queue.backlog)
            await client.send(post(3))
            await asyncio.sleep(0.005)
            live.model.gate.set()
            assert ((await first.read()).y, (await client.read()).y) == (1, 7)
            assert live.model.seen == [0, 3]

    run(work)


def test_websocket_while_waiting(run_on_both: Any, serve: Any, post: Post) -> None:
    """Asking for a websocket takes nobody's answers away, and does not stop the sweeping of idle connections."""

    async def work() -> None:
        async with serve(keep_alive=0.1) as live:
            await live.plug()
            client, idle = await live.connect(), await live.connect()
            upgrade = b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            upgrade += b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            await client.send(post(1) + upgrade)
            await asyncio.sleep(0.05)
            live.model.gate.set()
            assert (await client.read()).y == 3
            assert await idle.read() is None

    run_on_both(work)


# The end


@pytest.mark.parametrize(
    "behind", [b"", PAGE, PAGE * 3, in_chunks(12), b"GET /v1/mod", b"POST /v1/models/double/predict HTTP/1.1\r\n"]
)
def test_shutdown(behind: bytes, run_on_both: Any, serve: Any, post: Post) -> None:
    """A server that stops answers what it was asked, closes what is idle, and does not wait for what is to come."""

    async def work() -> None:
        async with serve(body_timeout_seconds=0.5) as live:
            idle, half, slow, client, chunky = [await live.connect() for _ in range(5)]
            assert (await idle.ask(post(9))).y == 19
            first = await live.plug()
            await half.send(post(1)[:30])
            await slow.send(post(8)[:-3])
            await chunky.send(in_chunks(18)[:-9])
            await client.send(post(1) + post(2) + post(3) + behind)
            await asyncio.sleep(0.01)
            stopping = asyncio.create_task(live.stop())
            assert await idle.read() is None
            assert await half.read() is None
            await slow.send(post(8)[-3:])
            await chunky.send(in_chunks(18)[-9:])
            await asyncio.sleep(0.01)
            live.model.gate.set()
            (zero,) = await first.read_all()
            assert (zero.y, zero["connection"]) == (1, "close")
            (eight,) = await slow.read_all()
            assert (eight.y, eight["connection"]) == (17, "close")
            (eighteen,) = await chunky.read_all()
            assert (eighteen.y, eighteen["connection"]) == (37, "close")
            answers = await client.read_all()
            assert [answer.y for answer in answers[:3]] == [3, 5, 7]
            assert [answer["connection"] for answer in answers] == [None] * (len(answers) - 1) + ["close"]
            async with asyncio.timeout(0.5):
                await stopping

    run_on_both(work)


def test_shutdown_of_the_endless(run_on_both: Any, serve: Any, post: Post) -> None:
    """A client that always has one more request outstanding does not keep a server that stops."""

    async def work() -> None:
        async with serve() as live:
            client = await live.connect()
            await client.send(post(1) + post(2))
            stopping = asyncio.create_task(live.stop())
            try:
                async with asyncio.timeout(1):
                    for number in range(10**6):
                        await client.send(post(number))
                        assert (await client.read()) is not None
            except (ConnectionError, AssertionError):
                pass
            async with asyncio.timeout(0.5):
                await stopping

    run_on_both(work)
