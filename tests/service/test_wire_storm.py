"""The short way in a storm: random clients and mutilated requests, by seed; every answer and count is checked."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.timeout(30)

Post = Callable[..., bytes]
Rng = np.random.Generator
ROUTE = b"POST /v1/models/double/predict HTTP/1.1\r\nhost: x\r\n"
TYPED = ROUTE + b"content-type: application/json\r\n"


# Counters

Asked = tuple[bytes, str]


def requests(number: int, post: Post) -> list[Asked]:
    """Requests of every kind, and how each is counted; the last ends the connection."""
    body = b'{"instances": [%d]}' % number
    return [
        (post(number), "ok"),
        (post(number), "ok"),
        (post(number, body=body.ljust(70_000)), "ok"),
        (TYPED + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), "ok"),
        (post(number, body=b"{"), "malformed_request"),
        (post(number, body=b"[]"), "invalid_request"),
        (post(number, headers=b"x-request-timeout-ms: x\r\n"), "malformed_request"),
        (ROUTE + b"content-length: 0\r\n\r\n", "unsupported_media_type"),
        (ROUTE.replace(b"POST", b"GET") + b"\r\n", "method_not_allowed"),
        (b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n", ""),
        (post(number).replace(b"double", b"triple"), ""),
        (TYPED + b"content-length: 999999999\r\n\r\n", "body_too_large"),
    ]


class Caller:
    """A client that knows what it was told."""

    def __init__(self, live: Any, post: Post, rng: Rng) -> None:
        self.live, self.post, self.rng, self.told = live, post, rng, Counter[str]()
        self.client: Any = None

    async def work(self, bursts: int) -> None:
        """Ask in bursts; now and then leave in the middle of a request, and come again."""
        self.client = await self.live.connect()
        for _ in range(bursts):
            kind = self.rng.integers(10)
            if kind < 8:
                await self.burst()
            else:
                # Counted only if the headers were whole.
                data = self.post(99_999)
                await self.client.send(data[: -5 if kind == 8 else 60])
                await asyncio.sleep(0.002)
                self.told["disconnected"] += int(kind == 8)
                await self.come_again()

    async def burst(self) -> None:
        numbers = self.rng.integers(10**6, size=self.rng.integers(1, 20))
        asked = [requests(number, self.post)[self.rng.integers(11)] for number in numbers]
        is_last = self.rng.random() < 0.2
        if is_last:
            asked.append(requests(0, self.post)[-1])
        await self.client.send(b"".join(request for request, _ in asked))
        for number, (_, outcome) in zip([*numbers, 0], asked, strict=False):
            answer = await self.client.read()
            self.told[outcome] += bool(outcome)
            assert answer is not None
            if outcome == "ok":
                assert answer.y == 2 * number + 1
            elif outcome:
                assert answer.json["code"] == outcome
        if is_last:
            assert await self.client.read() is None
            await self.come_again()

    async def come_again(self) -> None:
        self.client.reset()
        self.client = await self.live.connect()

    async def leave_waiting(self, number: int) -> None:
        """Ask while the gate is shut, and leave."""
        await self.client.send(self.post(number) * 3)
        await self.live.until(lambda: self.live.endpoint.batcher.queue.backlog >= 3)
        await asyncio.sleep(0.005)
        self.client.reset()
        self.told["disconnected"] += 3


@pytest.mark.parametrize("seed", range(3))
def test_everything_is_counted_once(seed: int, run_on_both: Any, serve: Any, post: Post) -> None:
    """After a storm of requests and leavings the counters say what the clients saw, no more and no less."""

    async def work() -> None:
        async with serve() as live:
            rng = np.random.default_rng(seed)
            callers = [Caller(live, post, child) for child in rng.spawn(8)]
            await asyncio.gather(*(caller.work(10) for caller in callers))
            first = await live.plug()
            await asyncio.gather(*(caller.leave_waiting(99_999) for caller in callers))
            late = await (await live.connect()).ask(post(99_999, headers=b"x-request-timeout-ms: 1\r\n"))
            assert late.status == 504
            await live.until(lambda: len(live.state.connections) <= 2)
            live.model.gate.set()
            assert (await first.read()).y == 1
            told = sum((caller.told for caller in callers), Counter({"ok": 1, "deadline_exceeded": 1}))
            assert sum(told.values()) > 500
            assert await live.counted() == told
            assert 99_999 not in live.model.seen

    run_on_both(work)


# Smuggling

HIDDEN = TYPED + b'content-length: 21\r\n\r\n{"instances": [6666]}'
SMUGGLED = {
    "length and chunks": b"content-length: 18\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": b"transfer-encoding: chunked\r\ncontent-length: 18\r\n\r\n0\r\n\r\n",
    "two lengths": b"content-length: 18\r\ncontent-length: 0\r\n\r\n",
    "two equal lengths": b"content-length: 0\r\ncontent-length: 0\r\n\r\n",
    "list of lengths": b"content-length: 0, 0\r\n\r\n",
    "blank before the colon": b"content-length : 0\r\n\r\n",
    "chunks with a blank": b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    "strange coding": b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked not last": b"transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunked twice": b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
    "vertical tab": b"transfer-encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "length with a sign": b"content-length: +0\r\n\r\n",
    "hexadecimal length": b"content-length: 0x0\r\n\r\n",
    "length that wraps": b"content-length: 18446744073709551616\r\n\r\n",
    "folded length": b"x: y\r\n content-length: 0\r\n\r\n",
    "bare line feed": b"content-length: 0\n\r\n",
    "bare line feeds": b"x: y\ncontent-length: 0\n\n",
    "bare return": b"x: y\rcontent-length: 0\r\r\n\r\n",
    "NUL": b"content-length: 0\x00\r\n\r\n",
    "NUL in a name": b"content\x00-length: 0\r\n\r\n",
    "chunk size with a sign": b"transfer-encoding: chunked\r\n\r\n+0\r\n\r\n",
    "chunk size that wraps": b"transfer-encoding: chunked\r\n\r\n10000000000000000\r\n\r\n",
    "chunk with a bare line feed": b"transfer-encoding: chunked\r\n\r\n0\n\n",
    "chunk longer than it says": b"transfer-encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", SMUGGLED)
def test_no_smuggling(name: str, run: Any, serve: Any) -> None:
    """Where a body ends is never in doubt: what is ambiguous is refused, and what it hides is never computed."""

    async def work() -> None:
        async with serve() as live:
            client = await live.connect()
            await client.send(TYPED + SMUGGLED[name] + HIDDEN)
            (answer,) = await client.read_all()
            assert (answer.status, answer["connection"]) in ((400, "close"), (413, "close"))
            assert live.model.seen == []

    run(work)


UPGRADES = {
    "length": b"content-length: %d\r\n\r\n%b" % (len(HIDDEN), HIDDEN),
    "chunks": b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN),
    "trailers": b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\na: b\r\n\r\n" % (len(HIDDEN), HIDDEN),
}


@pytest.mark.parametrize("wire", [True, False])
@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket", b"TLS/1.2", b"foo"])
@pytest.mark.parametrize("name", UPGRADES)
def test_no_smuggling_by_upgrades(name: str, upgrade: bytes, wire: bool, run: Any, serve: Any, post: Post) -> None:
    """A body that comes later than a wish for another protocol is a body, and what follows it a request."""

    async def work() -> None:
        async with serve(wire=wire) as live:
            client = await live.connect()
            head, body = UPGRADES[name].split(b"\r\n\r\n", 1)
            wish = b"connection: upgrade\r\nupgrade: %b\r\n" % upgrade
            await client.send(TYPED + wish + head + b"\r\n\r\n")
            await asyncio.sleep(0.01)
            assert client.is_silent()
            half = len(body) // 2
            await client.send(body[:half], body[half:] + post(1), post(2, close=True))
            refused, first, second = await client.read_all()
            assert (refused.status, first.y, second.y) == (400, 3, 5)
            assert live.model.seen == [1, 2]

    run(work)


# Mutation


def originals(post: Post) -> list[bytes]:
    body = b'{"instances": [7]}'
    return [
        post(7),
        post(7) + post(8),
        post(7, close=True),
        post(7, headers=b"x-request-id: abc\r\nx-request-timeout-ms: 900\r\naccept: */*\r\n"),
        TYPED + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
        b"GET /v1/models/double HTTP/1.1\r\nhost: x\r\n\r\n" + post(7),
    ]


def mutate(data: bytes, rng: Rng) -> bytes:
    """Return the same bytes after one to three accidents."""
    for _ in range(rng.integers(1, 4)):
        position, size = int(rng.integers(len(data) + 1)), int(rng.integers(1, 9))
        line = data.find(b"\r\n", position) + 2
        before, after = data[:position], data[position:]
        data = [
            before + bytes([rng.integers(256)]) + after[1:],
            before + bytes([after[0] ^ (1 << rng.integers(8))]) + after[1:] if after else data,
            before + after[size:],
            before,
            before + rng.bytes(size) + after,
            before + after[:size] * 2 + after[size:],
            before + b"\x00" * size + after,
            before + b"\r\n" + after,
            before + b"\n" + after,
            data[:line] + b"content-length: 5\r\n" + data[line:],
            data[:line] + b"transfer-encoding: chunked\r\n" + data[line:],
            data[:line] + b"expect: 100-continue\r\n" + data[line:],
            data[:line] + b"connection: upgrade\r\nupgrade: websocket\r\n" + data[line:],
            data[:line] + b"x: " + b"y" * 70_000 + b"\r\n" + data[line:],
            data[:line] + data[line:].split(b"\r\n", 1)[0] + b"\r\n" + data[line:],
            data.replace(b"content-length: 18", b"content-length: %d" % rng.integers(-9, 99)),
            data.replace(b"HTTP/1.1", b"HTTP/1.0", 1),
            data.replace(b"POST", rng.choice([b"GET", b"PUT", b"OPTIONS", b"TRACE", b"PRI", b"M-SEARCH"]), 1),
            data.replace(b"/v1", rng.choice([b"http://x/v1", b"/v1/../v1", b"*", b"/%76%31", b"/v1?a#b", b"\xff"]), 1),
        ][rng.integers(19)]
    return data


async def fates(live: Any, requests: list[bytes], seconds: float) -> list[list[Any] | None]:
    """Return the answers to each of these on a connection of its own, until the server closes it, or for so long.

    ``None`` if it closed the connection before it had read everything: then an answer may be lost on its way.
    """

    async def fate(data: bytes) -> list[Any] | None:
        answers: list[Any] = []
        client = await live.connect(is_known=False)
        try:
            await client.send(data)
            async with asyncio.timeout(seconds):
                while (answer := await client.read()) is not None:
                    answers.append(answer.steady())
                answers.append(END)
        except ConnectionError:
            return None
        except TimeoutError:
            pass
        return None if client.is_reset else answers

    return [found for some in batched(requests, 500) for found in await asyncio.gather(*map(fate, some))]


def batched(items: list[bytes], size: int) -> list[list[bytes]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


END = object()
LIMITS = {"body_timeout_seconds": 0.2, "keep_alive": 0.1}


def test_mutilated_requests(run: Any, serve: Any, post: Post) -> None:
    """Whatever arrives, the server answers without a 5xx, closes the connection, and goes on."""
    rng = np.random.default_rng(0)
    sent = [mutate(data, rng) for _ in range(350) for data in originals(post)]

    async def work() -> None:
        async with serve(**LIMITS) as live:
            seen = Counter[int]()
            for data, answers in zip(sent, await fates(live, sent, 5), strict=True):
                if answers is not None:
                    assert answers[-1] is END, data
                    assert all(answer.status < 500 for answer in answers[:-1]), data
                    seen.update(answer.status for answer in answers[:-1])
            assert set(seen) == {100, 200, 400, 404, 405, 408, 415, 422, 431}
            assert min(seen[200], seen[400]) > 400
            assert (await (await live.connect()).ask(post(1))).y == 3

    run(work)


def test_mutilated_requests_the_long_way(run: Any, serve: Any, post: Post) -> None:
    """The front alone answers the same."""
    rng = np.random.default_rng(1)
    sent = [mutate(data, rng) for _ in range(80) for data in originals(post)]

    async def work() -> None:
        async with serve(wire=False, **LIMITS) as live:
            expected = await fates(live, sent, 5)
        async with serve(**LIMITS) as live:
            found = await fates(live, sent, 5)
        whole = [fate for fate in zip(sent, found, expected, strict=True) if None not in fate]
        assert len(whole) > 0.9 * len(sent)
        for data, ours, theirs in whole:
            assert ours == theirs, data

    run(work)
