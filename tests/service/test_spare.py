"""What is done when there is time: long bodies in turn, pages asked for without waiting, and pages made once."""

import asyncio
from time import monotonic
from typing import Any

import pytest

from service.server.connection import MOST_UNANSWERED, SLICE_BYTES
from service.server.flow_control import PIECE_BYTES, TICK_SECONDS, LowPriorityQueue, ReadGate

HEAD = b"POST /v1/models/double/predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
PAGE = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
LONG = b'{"instances": [4]}'.ljust(4_000_000)


class Pipe:
    """A transport that notes whether it is read."""

    def __init__(self) -> None:
        self.is_read, self.is_closed = True, False

    def pause_reading(self) -> None:
        assert self.is_read
        self.is_read = False

    def resume_reading(self) -> None:
        assert not self.is_read
        self.is_read = True

    def is_closing(self) -> bool:
        return self.is_closed


def test_a_valve_has_many_hands(run: Any) -> None:
    """A connection is read only when nobody keeps it shut, and what was read before comes first."""

    async def work() -> None:
        pipe, poured = Pipe(), []
        valve = ReadGate(pipe, lambda: poured.append(1))  # type: ignore[arg-type]
        valve.pause_reading()
        valve.hold()
        valve.resume_reading()
        assert not pipe.is_read
        valve.release()
        assert pipe.is_read
        valve.hold()
        valve.rest = b"something"
        valve.release()
        await asyncio.sleep(0)
        assert (pipe.is_read, poured) == (False, [1])
        valve.rest = b""
        valve.turn()
        assert pipe.is_read

    run(work)


def test_the_oldest_first(run: Any) -> None:
    """What has an earlier turn is done before what waits longer, one thing per tick."""

    async def work() -> None:
        spare, done = LowPriorityQueue(), []
        old, young = spare.new_turn(), spare.new_turn()
        for name, turn in (("young", young), ("old", old), ("young again", young)):
            spare.add(turn, lambda name=name: done.append(name))
        assert not done
        while len(done) < 3:
            await asyncio.sleep(0.001)
        assert done == ["old", "young", "young again"]

    run(work)


@pytest.mark.parametrize("chunked", [False, True])
def test_long_bodies_come_whole_one_after_another(chunked: bool, run_on_both: Any, serve: Any) -> None:
    """Of many long bodies that arrive at once the first is whole before the others grow; all are answered.

    Beside the one that grows there may be one that is being encoded, and the first piece of each.
    """
    kind = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % len(LONG)
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(LONG), LONG) if chunked else LONG

    async def work() -> None:
        async with serve(max_arriving_bytes=10**9) as live:
            gateway = live.front.gateway
            clients = [await live.connect() for _ in range(8)]
            sending = [asyncio.ensure_future(one.send(HEAD + kind + b"\r\n\r\n" + body)) for one in clients]
            most = 0
            while not all(task.done() for task in sending):
                most = max(most, gateway.body_memory.held)
                await asyncio.sleep(0)
            for client in clients:
                assert (await client.read()).y == 9
            assert 0 < most < 2 * len(LONG) + len(clients) * PIECE_BYTES

    run_on_both(work)


def test_pages_are_no_race(run_on_both: Any, serve: Any, post: Any) -> None:
    """Who asks for page after page without waiting is answered, in order, beside others that are not kept waiting."""

    async def work() -> None:
        async with serve() as live:
            hasty, other = await live.connect(), await live.connect()
            sending = asyncio.ensure_future(hasty.send(PAGE * 300))
            for number in range(20):
                assert (await other.ask(post(number))).y == 2 * number + 1
            most, started = 0, monotonic()
            for _ in range(300):
                assert (await hasty.read()).status == 200
                most = max(most, *(len(wire.pipeline) for wire in live.state.connections))
            await sending
            assert monotonic() - started > 200 * TICK_SECONDS
            assert 0 < most <= MOST_UNANSWERED + SLICE_BYTES // len(PAGE) + 1

    run_on_both(work)


def test_little_is_read_at_once(run_on_both: Any, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a pipeline that waits for its turn no more is held than one piece, though much more has come."""
    monkeypatch.setattr("service.server.flow_control.TICK_SECONDS", 3600)

    async def work() -> None:
        async with serve() as live:
            client = await live.connect()
            sending = asyncio.ensure_future(client.send(PAGE * 30_000))
            await live.until(lambda: any(wire.flow.rest for wire in live.state.connections))
            (wire,) = live.state.connections
            assert PIECE_BYTES // 2 < len(wire.flow.rest) <= PIECE_BYTES
            wire.transport.abort()
            await asyncio.gather(sending, return_exceptions=True)

    run_on_both(work)


def test_nothing_is_kept_of_who_has_left(run_on_both: Any, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is gone holds none of its bytes, though it waits for the garbage collector itself."""
    monkeypatch.setattr("service.server.flow_control.TICK_SECONDS", 3600)

    async def work() -> None:
        async with serve() as live:
            client = await live.connect()
            await client.send(HEAD + b"transfer-encoding: chunked\r\n\r\n" + b"%x\r\n" % len(LONG) + LONG[:200_000])
            await live.until(lambda: len(live.state.connections) == 1)
            (wire,) = live.state.connections
            await live.until(lambda: wire.flow.is_held)
            wire.flow.rest += b"some"
            wire.cycle.body += b"more"
            wire.transport.abort()
            await live.until(lambda: not live.state.connections)
            await live.until(lambda: live.front.gateway.body_memory.held == 0)
            assert (wire.flow.rest, wire.cycle.body) == (b"", bytearray())

    run_on_both(work)


def test_pages_are_made_once(run: Any, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until another version is live or a runner says where it computes; then the page says so at once."""
    made = []

    def index(gateway: Any) -> dict[str, Any]:
        made.append(1)
        return {"models": [endpoint.provider for endpoint in gateway.endpoints.values()]}

    monkeypatch.setattr("service.server.routes.index", index)

    async def work() -> None:
        async with serve() as live:
            client = await live.connect()
            pages = [await client.ask(PAGE) for _ in range(3)]
            assert len(made) == 1
            live.endpoint.provider = "elsewhere"
            assert (await client.ask(PAGE)).json["models"][0] == "elsewhere"
            assert "elsewhere" not in pages[0].json["models"]
            assert len(made) == 2

    run(work)


def test_who_is_still_sending_has_time_to_read_why(run_on_both: Any, serve: Any) -> None:
    """Closing on a caller that sends resets the connection, and its answer is lost (trial ``slow_clients``)."""

    async def work() -> None:
        async with serve(max_body_bytes=1024) as live:
            client = await live.connect()
            await client.send(HEAD + b"content-length: 100000\r\n\r\n" + b" " * 2000)
            assert (await client.read()).status == 413
            await asyncio.sleep(0.2)
            assert client.is_silent()
            await client.send(b" " * 98_000)
            assert await client.read() is None

    run_on_both(work)


def test_nothing_follows_the_last_answer(run_on_both: Any, serve: Any) -> None:
    """What a caller goes on sending after it was refused is not complained about in its answer."""
    content = HEAD + b"transfer-encoding: chunked\r\n\r\n" + b"ff\r\n%b\r\n" % (b" " * 0xFF) * 9 + b"no chunk\r\n"

    async def work() -> None:
        async with serve(max_body_bytes=1024) as live:
            client = await live.connect()
            await client.send(content[:2200])
            assert (await client.read()).status == 413
            await client.send(content[2200:])
            assert await client.read() is None

    run_on_both(work)


def test_a_broken_request_after_an_unread_body(run_on_both: Any, serve: Any) -> None:
    """Is complained about, though uvicorn never took the end of the body before it for one."""

    async def work() -> None:
        async with serve() as live:
            client = await live.connect()
            await client.send(b"POST /nothing HTTP/1.1\r\nhost: x\r\n")
            await client.send(b"content-length: 2\r\n\r\n")
            assert (await client.read()).status == 404
            await client.send(b"{}")
            await client.send(b"BREW0 /nothing HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await client.read()).status == 400

    run_on_both(work)
