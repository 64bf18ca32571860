"""The short way below ASGI, at the socket: what is answered is what the front answers, in the order it was asked."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest

pytestmark = pytest.mark.timeout(20)

Post = Callable[..., bytes]
VIEWS = orjson.dumps({"instances": [{"views": [100 + n % 7 for n in range(56)], "horizon": 3}]})
ROUTE = b"/v1/models/viewcount/predict"
JSON_TYPE = b"content-type: application/json"
SIZE = b"content-length: %d" % len(VIEWS)
GOOD = (JSON_TYPE, SIZE)
CHUNKED = b"transfer-encoding: chunked"


def raw(
    *headers: bytes, body: bytes = VIEWS, method: bytes = b"POST", path: bytes = ROUTE, version: bytes = b"1.1"
) -> bytes:
    return b"\r\n".join((b"%b %b HTTP/%b" % (method, path, version), b"host: x", *headers, b"", body))


def sized(body: bytes, *headers: bytes) -> bytes:
    return raw(JSON_TYPE, b"content-length: %d" % len(body), *headers, body=body)


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


# What `curl --http2` and Java's own client send with every POST.
H2C = (b"connection: Upgrade, HTTP2-Settings", b"upgrade: h2c", b"http2-settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAA")
HEAD_OF_UPGRADE = raw(*GOOD, *H2C, body=b"")
HEAD_OF_GOOD = raw(*GOOD, body=b"")
NPY = (
    b"\x93NUMPY\x01\x00\x46\x00{'descr': '<i8', 'fortran_order': False, 'shape': (56,), }".ljust(79) + b"\n"
    + np.arange(56, dtype="<i8").tobytes()
)  # fmt: skip

# What a request looks like on the wire, in segments, and the status of its answer.
REQUESTS: dict[str, tuple[int, list[bytes]]] = {
    "good": (200, [raw(*GOOD)]),
    "array": (200, [raw(b"content-type: application/x-npy", b"content-length: %d" % len(NPY), body=NPY)]),
    "broken array": (400, [raw(b"content-type: application/x-npy", b"content-length: 5", body=b"\x93NUMP")]),
    "parameters of the content type": (200, [raw(b"content-type: Application/JSON; charset=utf-8", SIZE)]),
    "lower case": (200, [raw(*(line.lower() for line in GOOD))]),
    "upper case": (200, [raw(JSON_TYPE.upper(), SIZE.upper())]),
    "spaces around values": (200, [raw(b"content-type:   application/json \t", b"content-length:\t%d " % len(VIEWS))]),
    "no spaces": (200, [raw(b"content-type:application/json", b"content-length:%d" % len(VIEWS))]),
    "body in bytes": (200, [HEAD_OF_GOOD, *(VIEWS[n : n + 1] for n in range(len(VIEWS)))]),
    "headers in bytes": (200, [raw(*GOOD)[n : n + 1] for n in range(len(HEAD_OF_GOOD))] + [VIEWS]),
    "headers in pieces": (200, [raw(*GOOD)[n : n + 7] for n in range(0, len(raw(*GOOD)), 7)]),
    "line feeds before": (200, [b"\r\n\r\n" + raw(*GOOD)]),
    "many headers": (200, [raw(*GOOD, *(b"x-%d: %d" % (n, n) for n in range(90)))]),
    "most headers": (200, [raw(*GOOD, *(b"x-%d: %d" % (n, n) for n in range(253)))]),
    "too many headers": (431, [raw(*GOOD, *(b"x-%d: %d" % (n, n) for n in range(254)))]),
    "far too many headers": (431, [raw(*GOOD, *[b"a:"] * 10_000)]),
    "long header": (200, [raw(*GOOD, b"cookie: " + b"a" * 60_000)]),
    "request id": (200, [raw(*GOOD, b"x-request-id: kept")]),
    "request id in capitals": (200, [raw(*GOOD, b"X-Request-ID: kept")]),
    "request id twice": (200, [raw(*GOOD, b"x-request-id: kept", b"x-request-id: other")]),
    "bad request id": (200, [raw(*GOOD, b"x-request-id: <script>")]),
    "long request id": (200, [raw(*GOOD, b"x-request-id: " + b"a" * 65)]),
    "request id of a refusal": (400, [sized(b"{", b"x-request-id: kept")]),
    "timeout": (200, [raw(*GOOD, b"x-request-timeout-ms: 900")]),
    "long timeout": (200, [raw(*GOOD, b"x-request-timeout-ms: 999999999999999999")]),
    "bad timeout": (400, [raw(*GOOD, b"x-request-timeout-ms: -1")]),
    "fractional timeout": (400, [raw(*GOOD, b"x-request-timeout-ms: 1.5")]),
    "endless timeout": (400, [raw(*GOOD, b"x-request-timeout-ms: " + b"9" * 5000)]),
    "empty timeout": (400, [raw(*GOOD, b"x-request-timeout-ms:")]),
    "not JSON": (400, [sized(b"{")]),
    "not UTF-8": (400, [sized(b"\xff" * 9)]),
    "empty body": (400, [sized(b"")]),
    "no body": (400, [raw(JSON_TYPE, body=b"")]),
    "nested": (422, [sized(b'{"instances": ' + b"[" * 900 + b"]" * 900 + b"}")]),
    "wrong type": (422, [sized(b'{"instances": 1}')]),
    "unknown field": (422, [sized(b'{"instances": [], "x": 1}')]),
    "too many": (422, [sized(orjson.dumps({"instances": [{"views": [1] * 56}] * 3}))]),
    "not whole": (422, [sized(orjson.dumps({"instances": [{"views": [0.5] * 56}]}))]),
    "explained": (422, [sized(orjson.dumps({"instances": [{"views": [1] * 56}], "explain": True}))]),
    "no content type": (415, [raw(SIZE)]),
    "wrong content type": (415, [raw(b"content-type: text/plain", SIZE)]),
    "two content types": (415, [raw(*GOOD, JSON_TYPE)]),
    "strange content type": (415, [raw(b"content-type: \xff\xfe", SIZE)]),
    "too long": (413, [sized(b"x" * 2049)]),
    "longest": (200, [sized(VIEWS.ljust(2048))]),
    "endless": (413, [raw(JSON_TYPE, b"content-length: 9999999999999999999", body=b"")]),
    "chunks": (200, [raw(JSON_TYPE, CHUNKED, body=chunked(VIEWS[:9], VIEWS[9:]))]),
    "chunks in pieces": (200, [raw(JSON_TYPE, CHUNKED, body=chunked(VIEWS))[n : n + 40] for n in range(0, 480, 40)]),
    "chunks too long": (413, [raw(JSON_TYPE, CHUNKED, body=chunked(b"x" * 1500, b"x" * 1500))]),
    "broken chunks": (400, [raw(JSON_TYPE, CHUNKED, body=b"zz\r\n")]),
    "broken second chunk": (400, [raw(JSON_TYPE, CHUNKED, body=b""), b"1\r\n{\r\n", b"-1\r\n"]),
    "chunks that stop": (408, [raw(JSON_TYPE, CHUNKED, body=b"9\r\n")]),
    "body that stops": (408, [raw(*GOOD, body=VIEWS[:-1])]),
    "body that never comes": (408, [raw(*GOOD, body=b"")]),
    "HTTP/1.0": (200, [raw(*GOOD, version=b"1.0")]),
    "HTTP/1.0 kept alive": (200, [raw(*GOOD, b"connection: keep-alive", version=b"1.0")]),
    "HTTP/9.9": (400, [raw(*GOOD, version=b"9.9")]),
    "last": (200, [raw(*GOOD, b"connection: close")]),
    "last in capitals": (200, [raw(*GOOD, b"Connection: Close")]),
    "last and refused": (400, [sized(b"{", b"connection: close")]),
    "last of a list": (200, [raw(*GOOD, b"connection: te, close")]),
    "kept alive": (200, [raw(*GOOD, b"connection: keep-alive")]),
    "upgrade": (200, [raw(*GOOD, *H2C)]),
    "upgrade, body later": (200, [HEAD_OF_UPGRADE, VIEWS]),
    "upgrade in bytes": (200, [raw(*GOOD, *H2C)[n : n + 1] for n in range(len(HEAD_OF_UPGRADE))] + [VIEWS]),
    "upgrade of chunks": (200, [raw(JSON_TYPE, CHUNKED, *H2C, body=chunked(VIEWS[:9], VIEWS[9:]))]),
    "upgrade to a websocket": (200, [raw(*GOOD, b"connection: upgrade", b"upgrade: websocket")]),
    "upgrade to TLS": (200, [raw(*GOOD, b"connection: keep-alive, upgrade", b"upgrade: TLS/1.2, foo")]),
    "upgrade to nothing": (200, [raw(*GOOD, b"connection: upgrade", b"upgrade:")]),
    "upgrade twice": (200, [raw(*GOOD, *H2C, b"upgrade: foo", b"connection: upgrade")]),
    "upgrade and close": (200, [raw(*GOOD, b"connection: upgrade, close", b"upgrade: h2c")]),
    "upgrade of HTTP/1.0": (200, [raw(*GOOD, *H2C, version=b"1.0")]),
    "upgrade of a page": (200, [raw(*H2C, method=b"GET", path=b"/v1/models", body=b"")]),
    "upgrade refused": (400, [sized(b"{", *H2C)]),
    "upgrade too long": (413, [sized(b"x" * 2049, *H2C)]),
    "upgrade, long headers": (200, [raw(*GOOD, *H2C, b"cookie: " + b"a" * 60_000)]),
    "CONNECT": (405, [raw(method=b"CONNECT", path=b"x:443", body=b"")]),
    "HTTP/2 at once": (400, [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]),
    "trailers": (200, [raw(JSON_TYPE, CHUNKED, body=chunked(VIEWS)[:-2] + b"x: y\r\ncontent-type: a\r\n\r\n")]),
    "extensions": (200, [raw(JSON_TYPE, CHUNKED, body=b"%x;a=b\r\n%b\r\n0;c\r\n\r\n" % (len(VIEWS), VIEWS))]),
    "upgrade without connection": (200, [raw(*GOOD, b"upgrade: h2c")]),
    "query": (200, [raw(*GOOD, path=ROUTE + b"?a=b")]),
    "fragment": (200, [raw(*GOOD, path=ROUTE + b"#a")]),
    "percent": (200, [raw(*GOOD, path=b"/v1/models/view%63ount/predict")]),
    "slash": (404, [raw(*GOOD, path=ROUTE + b"/")]),
    "absolute": (200, [raw(*GOOD, path=b"http://x" + ROUTE)]),
    "not ASCII": (400, [raw(*GOOD, path=ROUTE + b"\xff")]),
    "unknown model": (404, [raw(*GOOD, path=b"/v1/models/gpt/predict")]),
    "unknown path": (404, [raw(*GOOD, path=b"/v3")]),
    "GET": (405, [raw(method=b"GET", body=b"")]),
    "HEAD": (405, [raw(method=b"HEAD", body=b"")]),
    "PUT": (405, [raw(*GOOD, method=b"PUT")]),
    "DELETE with a body": (405, [raw(*GOOD, method=b"DELETE")]),
    "unknown method": (400, [raw(*GOOD, method=b"GUESS")]),
    "lower-case method": (400, [raw(*GOOD, method=b"post")]),
    "list of models": (200, [raw(method=b"GET", path=b"/v1/models", body=b"")]),
    "health": (299, [raw(method=b"GET", path=b"/livez", body=b"")]),
    "no HTTP": (400, [b"hello\r\n\r\n"]),
    "two lengths": (400, [raw(*GOOD, SIZE)]),
    "length and chunks": (400, [raw(*GOOD, CHUNKED)]),
    "negative length": (400, [raw(JSON_TYPE, b"content-length: -1")]),
    "length with a sign": (400, [raw(JSON_TYPE, b"content-length: +5")]),
    "no length": (400, [raw(JSON_TYPE, b"content-length:")]),
    "folded header": (400, [raw(*GOOD, b"x-a: b\r\n c")]),
    "header without a name": (400, [raw(*GOOD, b": b")]),
    "NUL in a header": (400, [raw(*GOOD, b"x-a: \x00")]),
    "no host": (400, [raw(*GOOD).replace(b"host: x\r\n", b"")]),
    "no host in HTTP/1.0": (200, [raw(*GOOD, version=b"1.0").replace(b"host: x\r\n", b"")]),
    "no host of a page": (400, [raw(method=b"GET", path=b"/v1/models", body=b"").replace(b"host: x\r\n", b"")]),
    "two hosts": (400, [raw(*GOOD, b"host: x")]),
    "two hosts in HTTP/1.0": (400, [raw(*GOOD, b"host: y", version=b"1.0")]),
    "list of hosts": (400, [raw(*GOOD).replace(b"host: x", b"host: x, y")]),
    "host with a path": (400, [raw(*GOOD).replace(b"host: x", b"host: x/y")]),
    "host with a user": (400, [raw(*GOOD).replace(b"host: x", b"host: a@x")]),
    "empty host": (200, [raw(*GOOD).replace(b"host: x", b"host:")]),
    "host by IPv6": (200, [raw(*GOOD).replace(b"host: x", b"host: [::1]:3000")]),
}  # fmt: skip


async def answers_to(live: Any, segments: list[bytes]) -> list[Any]:
    """Return what a client sees that sends this, and then one more request; without what differs each time."""
    client = await live.connect()
    is_head = segments[0].startswith(b"HEAD")
    await client.send(*segments)
    found = [await client.read(is_head=is_head)]
    if found[-1].status == 100:
        found.append(await client.read())
    try:
        await client.send(raw(*GOOD, b"x-request-id: after"))
        found.append(await client.read())
    except ConnectionError:
        found.append(None)
    return [answer and answer.steady() for answer in found]


@pytest.mark.parametrize("name", REQUESTS)
def test_same_as_the_front(name: str, run: Any, serve: Any) -> None:
    """Whatever is sent, the answer is the ASGI front's to the last byte, and so is what becomes of the connection."""
    status, segments = REQUESTS[name]

    async def work() -> None:
        limits = {"max_body_bytes": 2048, "max_instances": 2, "body_timeout_seconds": 0.1 if status == 408 else 10}
        async with serve(wire=False, **limits) as live:
            expected = await answers_to(live, segments)
        async with serve(**limits) as live:
            found = await answers_to(live, segments)
        assert found == expected
        assert found[0].status == status
        if status >= 400:
            assert found[0]["content-type"] == "application/problem+json"
        if found[1] is not None:
            assert found[1].status == 200

    run(work)


@pytest.mark.parametrize("wire", [True, False])
@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket", b"TLS/1.2", b"foo"])
@pytest.mark.parametrize("piece", [1, 20, 10**6])
def test_no_upgrade(
    wire: bool, upgrade: bytes, piece: int, run: Any, serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Who asks for another protocol as well is answered in this one, one answer for each request, and not a word."""
    wish = (b"connection: upgrade, http2-settings", b"upgrade: " + upgrade, b"http2-settings: AAMAAABk")
    page = raw(*wish, method=b"GET", path=b"/v1/models", body=b"")
    inner = sized(VIEWS[:-1] + b" }", b"x-request-id: hidden")
    stream = (raw(*GOOD, *wish) + page) * 3 + sized(inner, *wish) + raw(*GOOD) + raw(*GOOD, b"connection: close")

    async def work() -> None:
        async with serve(wire=wire) as live:
            client = await live.connect()
            await client.send(*(stream[start : start + piece] for start in range(0, len(stream), piece)))
            answers = await client.read_all()
            assert [answer.status for answer in answers] == [200, 200] * 3 + [400, 200, 200]
            assert "hidden" not in {answer["x-request-id"] for answer in answers}
            if not wire or piece == 1:  # behind pages that are not answered yet predictions go the long way
                assert live.long_ways == (3 if wire else len(answers))
            assert not caplog.records

    run(work)


@pytest.mark.parametrize("wire", [True, False])
def test_nothing_behind_a_tunnel(wire: bool, run: Any, serve: Any) -> None:
    """What follows a CONNECT is no request."""

    async def work() -> None:
        async with serve(wire=wire) as live:
            client = await live.connect()
            await client.send(raw(*GOOD) + raw(method=b"CONNECT", path=b"x:443", body=b"") + raw(*GOOD))
            first, refused = await client.read_all()
            assert (first.status, refused.status, refused["connection"]) == (200, 405, "close")
            assert refused["allow"]

    run(work)


def test_trailers_are_no_headers(run: Any, serve: Any) -> None:
    """What comes behind a body is nobody's header: a caller is not let in, nor a body read, by its trailers."""

    async def work() -> None:
        async with serve() as live:
            seen: list[Any] = []

            async def call(scope: Any, receive: Any, send: Any) -> None:
                await live.front(scope, receive, send)
                seen.extend(scope["headers"])

            live.config.loaded_app = call
            client = await live.connect()
            await client.send(raw(JSON_TYPE, CHUNKED, body=b"1\r\n{\r\n"), b"0\r\nx-api-key: a\r\nhost: y\r\n\r\n")
            assert (await client.read()).status == 400
            await live.until(lambda: bool(seen))
            assert seen == [(b"host", b"x"), (b"content-type", b"application/json"), (b"transfer-encoding", b"chunked")]

    run(work)


def test_expect(run: Any, serve: Any) -> None:
    """A caller that waits for permission to send its body gets it, and its answer."""

    async def work() -> None:
        seen = []
        for is_wire in (False, True):
            async with serve(wire=is_wire) as live:
                client = await live.connect()
                await client.send(raw(*GOOD, b"expect: 100-continue", body=b""))
                assert (await client.read()).status == 100
                await client.send(VIEWS)
                seen.append((await client.read()).steady())
                seen.append((await client.ask(raw(*GOOD))).steady())
        assert seen[:2] == seen[2:]
        assert seen[0].status == 200

    run(work)


def test_short_way(run_on_both: Any, serve: Any) -> None:
    """Predictions never become ASGI calls, wherever their bytes are cut, also after requests that do."""

    async def work() -> None:
        async with serve() as live:
            client = await live.connect()
            for cut in range(1, len(raw(*GOOD)), 17):
                await client.send(raw(*GOOD)[:cut], raw(*GOOD)[cut:])
                assert (await client.read()).status == 200
            assert live.long_ways == 0
            assert (await client.ask(raw(method=b"GET", path=b"/v1/models", body=b""))).status == 200
            assert live.long_ways == 1
            assert (await client.ask(raw(*GOOD))).status == 200
            assert live.long_ways == 1

    run_on_both(work)


# Order


def kinds(number: int, post: Post) -> list[tuple[bytes, Callable[[Any], bool]]]:
    """Requests of every kind, and what their answers must be."""
    identity = b"x-request-id: r%d" % number
    body = b'{"instances": [%d]}' % number
    page = raw(identity, method=b"GET", path=b"/v1/models", body=b"")
    return [
        (post(number, headers=identity + b"\r\n"), lambda answer: answer.y == 2 * number + 1),
        (post(number, body=body.ljust(70_000), headers=identity + b"\r\n"), lambda answer: answer.y == 2 * number + 1),
        (post(number, body=b"{", headers=identity + b"\r\n"), lambda answer: answer.status == 400),
        (post(number, headers=identity + b"\r\nexpect: x\r\n"), lambda answer: answer.y == 2 * number + 1),
        (
            raw(JSON_TYPE, identity, CHUNKED, path=b"/v1/models/double/predict", body=chunked(body)),
            lambda answer: answer.y == 2 * number + 1,
        ),
        (page, lambda answer: len(answer.json["models"]) == 2),
        (page.replace(b"/v1/models", b"/nothing"), lambda answer: answer.status == 404),
        (raw(identity, SIZE), lambda answer: answer.status == 415),
    ]


@pytest.mark.parametrize("piece", [10**9, 65_536, 20_000, 1_000])
@pytest.mark.parametrize("which", [[0], [0, 0, 0, 1, 2], [0, 0, 0, 5], [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7]], ids=str)
def test_pipelined(piece: int, which: list[int], run: Any, serve: Any, post: Post) -> None:
    """Hundreds of requests sent at once are answered in their order, each with its own answer, whatever they are."""
    rng = np.random.default_rng(piece)
    sent = [kinds(number, post)[rng.choice(which)] for number in range(250)]
    stream = b"".join(request for request, _ in sent)

    async def work() -> None:
        async with serve(body_timeout_seconds=2) as live:
            client = await live.connect()
            pieces = [stream[start : start + piece] for start in range(0, len(stream), piece)]
            sending = asyncio.create_task(client.send(*pieces))
            for number, (_, is_right) in enumerate(sent):
                answer = await client.read()
                assert answer is not None, number
                assert answer["x-request-id"] == f"r{number}"
                assert is_right(answer), (number, answer)
            await sending
            assert (await client.ask(post(7))).y == 15

    run(work)


def test_later_ones_ready_first(run_on_both: Any, serve: Any, post: Post) -> None:
    """Answers that are ready before those of earlier requests wait for them."""

    async def work() -> None:
        async with serve() as live:
            client, release = await live.connect(), threading.Event()
            live.pool.submit(release.wait, 5)
            try:
                heavy = post(0, body=b'{"instances": [1]}'.ljust(70_000))
                await client.send(heavy + post(2) + post(0, body=b"{") + post(3) + heavy + post(4))
                await live.until(lambda: live.model.seen == [2, 3, 4])
                await asyncio.sleep(0.01)
                assert client.is_silent()
            finally:
                release.set()
            found = [await client.read() for _ in range(6)]
            assert [answer.status for answer in found] == [200, 200, 400, 200, 200, 200]
            assert [answer.y for answer in found if answer.status == 200] == [3, 5, 7, 3, 9]

    run_on_both(work)


def test_two_connections(run: Any, serve: Any, post: Post) -> None:
    """One connection's slow answer holds up no other connection."""

    async def work() -> None:
        async with serve() as live:
            await live.plug()
            other = await live.connect()
            for _ in range(3):
                assert (await other.ask(raw(*GOOD))).status == 200

    run(work)


@pytest.mark.parametrize("is_gated", [False, True])
@pytest.mark.parametrize("last", [{}, {"body": b"{"}, {"body": b'{"instances": [2]}'.ljust(70_000)}], ids=str)
def test_nothing_after_the_last(
    last: dict[str, bytes], is_gated: bool, run_on_both: Any, serve: Any, post: Post
) -> None:
    """After ``Connection: close`` nothing is answered or computed, and the last answer says that it is the last."""

    async def work() -> None:
        async with serve() as live:
            if is_gated:
                await live.plug()
            client = await live.connect()
            page = raw(method=b"GET", path=b"/v1/models", body=b"")
            await client.send(post(1) + post(2, close=True, **last) + post(3) + page + post(4, body=b"{"))
            await asyncio.sleep(0.01)
            live.model.gate.set()
            first, second, *more = await client.read_all()
            assert not more
            assert (first.y, first["connection"], second["connection"]) == (3, None, "close")
            assert second.status == (400 if last.get("body") == b"{" else 200)
            assert not {3, 4} & set(live.model.seen)
            assert live.long_ways == 0
            assert sum((await live.counted()).values()) == 2 + is_gated

    run_on_both(work)


@pytest.mark.parametrize("kind", [0, 1, 2, 4, 5])
@pytest.mark.parametrize(
    "broken", [b"GARBAGE\r\n\r\n", b"GET / HTTP/1.1\r\nx y: \r\n\r\n", b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n"]
)
def test_broken_after_good(broken: bytes, kind: int, run_on_both: Any, serve: Any, post: Post) -> None:
    """Before HTTP that cannot be read is complained of, what was asked before it is answered."""

    async def work() -> None:
        async with serve() as live:
            client, (request, is_right) = await live.connect(), kinds(5, post)[kind]
            await client.send(post(1) + request + broken + post(3))
            first, second, complaint = await client.read_all()
            assert (first.y, is_right(second), complaint.status) == (3, True, 400)
            assert [answer["connection"] for answer in (first, second, complaint)] == [None, None, "close"]
            assert 3 not in live.model.seen

    run_on_both(work)


def test_broken_while_waiting(run_on_both: Any, serve: Any, post: Post) -> None:
    """The same when the answers take long and the nonsense comes later; what follows it is never read."""

    async def work() -> None:
        async with serve() as live:
            await live.plug()
            client = await live.connect()
            await client.send(post(1) + post(2), b"\x00" * 100, post(3))
            await asyncio.sleep(0.01)
            assert client.is_silent()
            live.model.gate.set()
            first, second, complaint = await client.read_all()
            assert (first.y, second.y, complaint.status) == (3, 5, 400)
            assert [answer["connection"] for answer in (first, second, complaint)] == [None, None, "close"]
            assert 3 not in live.model.seen

    run_on_both(work)
