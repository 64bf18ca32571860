"""Who may call, at the socket: every route by every method with every kind of key, below ASGI and above it."""

import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest
from prometheus_client import generate_latest

from service.auth.api_keys import line_of

pytestmark = pytest.mark.timeout(60)

Post = Callable[..., bytes]
NAMES = ("predict", "admin", "metrics", "predict,admin,metrics")
KEYS = {roles: f"lectern_{number}" + "k" * 42 for number, roles in enumerate(NAMES)}
LINES = ";".join(line_of(key, f"of-{number}", [roles]) for number, (roles, key) in enumerate(KEYS.items()))
GOOD = KEYS["predict"].encode()
BEARER = b"authorization: Bearer " + GOOD
API_KEY = b"x-api-key: " + GOOD
OTHER = KEYS["admin"].encode()

DOUBLE = "/v1/models/double/predict"
ROUTES = {
    "/healthz": None,
    "/livez": None,
    "/readyz": None,
    "/metrics": {"metrics"},
    DOUBLE: {"predict"},
    "/v1/models/viewcount/predict": {"predict"},
    "/v1/models/nobody/predict": {"predict"},
    "/": {"predict", "admin"},
    "/docs.json": {"predict", "admin"},
    "/v1/models": {"predict", "admin"},
    "/v1/models/double": {"predict", "admin"},
    "/v1/models/double/assets": {"predict", "admin"},
    "/v1/models/nobody": {"predict", "admin"},
    "/v1/models/../models/double": {"predict", "admin"},
    "/v1/admin/models": {"admin"},
    "/v2": {"predict", "admin"},
    "/v2/health/live": None,
    "/v2/health/ready": None,
    "/v2/models/double": {"predict", "admin"},
    "/v2/models/double/ready": {"predict", "admin"},
    "/v2/models/double/infer": {"predict"},
    "/v2/models/double/versions/1.0.0/infer": {"predict"},
    "/v2/models/nobody/infer": {"predict"},
    "/v2/repository/index": {"admin"},
    "/v2/repository/models/double/unload": {"admin"},
    "/schema.json": {"predict", "admin"},
    "/static_content/swagger-ui.css": {"predict", "admin"},
    "/static_content/nothing": {"predict", "admin"},
    "/healthz/": {"predict", "admin"},
    "/HEALTHZ": {"predict", "admin"},
    "/%68ealthz": None,
    "/healthz?a=b": None,
    "/%6detrics": {"metrics"},
    "/metrics?a=b": {"metrics"},
    "/v1/models/doubl%65/predict": {"predict"},
    "//healthz": {"predict", "admin"},
    "/nothing": {"predict", "admin"},
}
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE")
BODY = b'{"instances": [5]}'


def request(
    path: str, *headers: bytes, method: str = "POST", body: bytes = BODY, identity: bytes = b"x-request-id: r"
) -> bytes:
    told = (b"content-type: application/json", b"content-length: %d" % len(body)) if body else ()
    return b"\r\n".join((f"{method} {path} HTTP/1.1".encode(), b"host: x", identity, *told, *headers, b"", body))


def with_body(method: str) -> bytes:
    return b"" if method in ("GET", "HEAD", "TRACE") else BODY


def both(run: Any, work: Callable[[bool], Any]) -> None:
    """Run on the wire and on the front."""
    for is_wire in (True, False):
        run(lambda is_wire=is_wire: work(is_wire))


async def ask_all(live: Any, header: bytes | None) -> dict[tuple[str, str], Any]:
    """Return the answer to every method on every route, each on a connection of its own, and whether it was kept."""
    found = {}
    for path in ROUTES:
        for method in METHODS:
            client = await live.connect()
            await client.send(request(path, *([header] if header else []), method=method, body=with_body(method)))
            found[path, method] = await client.read(is_head=method == "HEAD")
            client.close()
    return found


@pytest.mark.parametrize("roles", [*KEYS, "none", "unknown"])
def test_matrix(roles: str, run: Any, serve: Any) -> None:
    """A caller gets the answer of a service without keys, or 403 for its role, or 401 for everything but health."""
    key = KEYS.get(roles, "lectern_x")
    header = None if roles == "none" else f"authorization: Bearer {key}".encode()
    held = set(roles.split(",")) if roles in KEYS else None
    answers = {}

    async def work(is_wire: bool) -> None:
        async with serve(wire=is_wire) as live:
            unguarded = await ask_all(live, None)
        async with serve(wire=is_wire, keys=LINES) as live:
            guarded = answers[is_wire] = await ask_all(live, header)
            for (path, method), answer in guarded.items():
                needed = ROUTES[path]
                if needed is not None and held is None:
                    assert (answer.status, answer["www-authenticate"]) == (401, "Bearer"), (path, method)
                    assert answer["connection"] == ("close" if with_body(method) else None)
                elif needed is not None and not needed & held:
                    assert (answer.status, answer["www-authenticate"]) == (403, None), (path, method)
                elif path not in ("/docs.json",):  # which says that a key is needed
                    assert answer == unguarded[path, method], (path, method)
            if held is None:
                assert not live.model.seen
                bodies = {
                    answer.body for (path, method), answer in guarded.items() if ROUTES[path] and method != "HEAD"
                }
                assert len(bodies) == 1  # whatever there is or is not

    both(run, work)
    assert answers[True] == answers[False]


# How a key is presented, and the status of a prediction and of a page.
PRESENTED: dict[str, tuple[int, list[bytes]]] = {
    "bearer": (200, [BEARER]),
    "key": (200, [API_KEY]),
    "both alike": (200, [BEARER, API_KEY]),
    "names in capitals": (200, [BEARER.replace(b"authorization", b"AUTHORIZATION")]),
    "scheme in lower case": (200, [b"authorization: bearer " + GOOD]),
    "scheme in capitals": (200, [b"authorization: BEARER " + GOOD]),
    "spaces": (200, [b"authorization:   Bearer   " + GOOD + b" \t"]),
    "spaces around the key": (200, [b"x-api-key: \t" + GOOD + b"  "]),
    "other headers twice": (200, [BEARER, b"x-a: 1", b"x-a: 2"]),
    "nothing": (401, []),
    "both different": (401, [BEARER, b"x-api-key: " + OTHER]),
    "good and bad": (401, [BEARER, b"x-api-key: x"]),
    "bad and good": (401, [b"authorization: Bearer x", API_KEY]),
    "good and empty": (401, [BEARER, b"x-api-key:"]),
    "empty and good": (401, [b"authorization:", API_KEY]),
    "basic and good": (401, [b"authorization: Basic eDp5", API_KEY]),
    "bearer twice": (401, [BEARER, BEARER]),
    "bearer twice, different": (401, [b"authorization: Bearer x", BEARER]),
    "key twice": (401, [API_KEY, API_KEY]),
    "key twice, different": (401, [b"x-api-key: " + OTHER, API_KEY]),
    "three": (401, [BEARER, API_KEY, API_KEY]),
    "empty bearer": (401, [b"authorization: Bearer "]),
    "only bearer": (401, [b"authorization: Bearer"]),
    "empty authorization": (401, [b"authorization:"]),
    "empty key": (401, [b"x-api-key:"]),
    "no scheme": (401, [b"authorization: " + GOOD]),
    "basic": (401, [b"authorization: Basic " + GOOD]),
    "token": (401, [b"authorization: Token " + GOOD]),
    "bearer in the key": (401, [b"x-api-key: Bearer " + GOOD]),
    "joined": (401, [b"authorization: Bearer " + GOOD + b", Bearer " + GOOD]),
    "one letter less": (401, [BEARER[:-1]]),
    "one letter more": (401, [BEARER + b"k"]),
    "another case": (401, [b"x-api-key: " + GOOD.upper()]),
    "its hash": (401, [b"x-api-key: " + hashlib.sha256(GOOD).hexdigest().encode()]),
    "a line of the file": (401, [b"x-api-key: " + LINES.split(";")[0].encode()]),
    "its name": (401, [b"x-api-key: of-0"]),
    "not ASCII": (401, [b"x-api-key: \xff\xfe\x80" + GOOD]),
    "not ASCII around": (401, [b"x-api-key: " + GOOD + b"\xa0"]),
    "long": (401, [b"x-api-key: " + b"k" * 60_000]),
    "folded": (400, [b"x-api-key: x\r\n " + GOOD]),
    "NUL": (400, [b"x-api-key: " + GOOD + b"\x00"]),
    "proxy's": (401, [b"proxy-authorization: Bearer " + GOOD]),
    "cookie": (401, [b"cookie: x-api-key=" + GOOD]),
}  # fmt: skip


@pytest.mark.parametrize("name", PRESENTED)
def test_presented(name: str, run: Any, serve: Any) -> None:
    """Exactly one known key, once or alike in both headers, is a key; above ASGI and below by the same bytes."""
    status, headers = PRESENTED[name]
    answers = {}

    async def work(is_wire: bool) -> None:
        async with serve(wire=is_wire, keys=LINES) as live:
            found = []
            for part in (request(DOUBLE, *headers), request("/v1/models", *headers, method="GET", body=b"")):
                client = await live.connect()
                await client.send(part)
                found.append(await client.read())
                assert found[-1].status == status
                assert (found[-1]["www-authenticate"] == "Bearer") == (status == 401)
                assert GOOD not in found[-1].body
            answers[is_wire] = found
            outcomes = await live.counted()
            assert outcomes == ({"ok": 1} if status == 200 else {"unauthenticated": 1} if status == 401 else {})

    both(run, work)
    assert [*map(without_id, answers[True])] == [*map(without_id, answers[False])]


def without_id(answer: Any) -> tuple[int, list[tuple[str, str]], bytes]:
    """Return what was answered, but for the id that broken HTTP is given."""
    given = (answer["x-request-id"] or "").encode()
    headers = [(name, value) for name, value in answer.headers if name not in ("x-request-id", "content-length")]
    return answer.status, headers, answer.body.replace(given, b"ID")


def test_presented_again(run: Any, serve: Any) -> None:
    """What is remembered of good headers lets in nothing else: each is answered as if none was seen before."""

    async def work(is_wire: bool) -> None:
        async with serve(wire=is_wire, keys=LINES) as live:
            for _ in range(2):
                for name, (status, headers) in PRESENTED.items():
                    client = await live.connect()
                    await client.send(request(DOUBLE, *headers))
                    assert (await client.read()).status == status, name
                    client.close()
            client = await live.connect()
            await client.send(request(DOUBLE, b"x-api-key: Bearer " + GOOD))
            assert (await client.read()).status == 401

    both(run, work)


def test_a_megabyte(run: Any, serve: Any) -> None:
    """A header of a megabyte is a refusal; it is not even collected."""

    async def work(is_wire: bool) -> None:
        async with serve(wire=is_wire, keys=LINES) as live:
            client = await live.connect()
            whole = request(DOUBLE, b"x-api-key: " + b"k" * 2**20)
            with suppress(ConnectionError):
                await client.send(*(whole[start : start + 30_000] for start in range(0, len(whole), 30_000)))
            answer = await client.read()
            assert answer is None or answer.status == 431
            assert not live.model.seen

    both(run, work)


@pytest.mark.parametrize("key", [[], [b"x-api-key: " + KEYS["metrics"].encode()]], ids=["stranger", "forbidden"])
@pytest.mark.parametrize(
    "more", [b"content-length: 1000", b"transfer-encoding: chunked", b"content-length: 99999999999"]
)
def test_before_the_body(more: bytes, key: list[bytes], run: Any, serve: Any) -> None:
    """The answer comes with none of the body sent, permission to send it is not given, and the connection closes."""

    async def work(is_wire: bool) -> None:
        for expect in ([], [b"expect: 100-continue"]):
            async with serve(wire=is_wire, keys=LINES) as live:
                client = await live.connect()
                await client.send(request(DOUBLE, more, *expect, *key, body=b""))
                answer = await client.read()
                assert (answer.status, answer["connection"]) == (403 if key else 401, "close")
                assert await client.read() is None

    both(run, work)


def test_a_connection_without_a_body_stays(run: Any, serve: Any) -> None:
    """A stranger's GET costs it no connection, and its next request may bring the key."""

    async def work(is_wire: bool) -> None:
        async with serve(wire=is_wire, keys=LINES) as live:
            client = await live.connect()
            assert (await client.ask(request("/v1/models", method="GET", body=b""))).status == 401
            assert (await client.ask(request(DOUBLE, BEARER))).y == 11
            assert (await client.ask(request(DOUBLE))).status == 401
            assert await client.read() is None

    both(run, work)


def test_pipelined(run_on_both: Any, serve: Any) -> None:
    """A stranger's request behind good ones is refused in its turn, and nothing behind it is answered."""

    async def work() -> None:
        async with serve(keys=LINES) as live:
            client = await live.connect()
            await client.send(
                request(DOUBLE, BEARER) + request(DOUBLE, API_KEY) + request(DOUBLE) + request(DOUBLE, BEARER)
            )
            answers = await client.read_all()
            assert [answer.status for answer in answers] == [200, 200, 401]
            assert live.model.seen == [5, 5]

    run_on_both(work)


def test_short_way(run: Any, serve: Any) -> None:
    """With a good key, and over the limit too, a prediction never becomes an ASGI call."""

    async def work() -> None:
        async with serve(keys=LINES, requests_per_second=0.001) as live:
            client = await live.connect()
            assert [(await client.ask(request(DOUBLE, BEARER))).status for _ in range(3)] == [200, 429, 429]
            assert live.long_ways == 0

    run(work)


def test_never_told(run: Any, serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the log nor the metrics hold a key, or the hash of one, whatever went wrong with it."""
    secrets = [key.encode() for key in KEYS.values()]
    secrets += [hashlib.sha256(key).hexdigest().encode() for key in secrets]

    async def work(is_wire: bool) -> None:
        async with serve(wire=is_wire, keys=LINES) as live:
            caplog.set_level(logging.DEBUG)
            for headers in ([BEARER], [API_KEY, API_KEY], [b"x-api-key: " + OTHER], [b"x-api-key: " + GOOD + b"\x00"]):
                for path in (DOUBLE, "/nothing"):
                    client = await live.connect()
                    await client.send(request(path, *headers, identity=b"x-a: b"))
                    answer = await client.read()
                    assert not [secret for secret in secrets if secret in answer.body + str(answer.headers).encode()]
            text = caplog.text.encode()
            assert not [secret for secret in secrets if secret in text]

    both(run, work)
    assert not [secret for secret in secrets if secret in generate_latest()]


def test_reloaded(run: Any, serve: Any, tmp_path: Any) -> None:
    """A key that is withdrawn is refused from then on, on a connection that it had opened too."""
    file = tmp_path / "keys"
    file.write_text(LINES.replace(";", "\n"))

    async def work(is_wire: bool) -> None:
        file.write_text(LINES.replace(";", "\n"))
        async with serve(wire=is_wire, keys_file=str(file)) as live:
            client, access = await live.connect(), live.front.context().access
            assert (await client.ask(request(DOUBLE, BEARER))).y == 11
            file.write_text("\n".join(LINES.split(";")[1:]))
            access.reload()
            assert (await client.ask(request(DOUBLE, BEARER))).status == 401

    both(run, work)


def test_documented(run: Any, serve: Any) -> None:
    """OpenAPI says where a key is needed and how callers are refused; without keys it says nothing of them."""

    async def page(live: Any, *headers: bytes) -> Any:
        return (await (await live.connect()).ask(request("/docs.json", *headers, method="GET", body=b""))).json

    async def work() -> None:
        async with serve(keys=LINES) as live:
            document = await page(live, BEARER)
            schemes = document["components"]["securitySchemes"]
            assert document["security"] == [{name: []} for name in schemes]
            assert [scheme["type"] for scheme in schemes.values()] == ["http", "apiKey"]
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    is_open = ROUTES.get(path, {"predict"}) is None
                    assert ("401" in operation["responses"]) == ("429" in operation["responses"]) == (not is_open)
                    assert operation.get("security") == ([] if is_open else None)
        async with serve(requests_per_second=100) as live:
            document = await page(live)
            operation = document["paths"][DOUBLE]["post"]
            assert "securitySchemes" not in document["components"]
            assert ("429" in operation["responses"], "401" in operation["responses"]) == (True, False)
        async with serve() as live:
            text = str(await page(live))
            assert "'401'" not in text
            assert "'429'" not in text

    run(work)


# Rates


def test_limited(run: Any, serve: Any) -> None:
    """Over its limit a caller is told when to come again, on a connection that stays; the model is left in peace."""
    answers = {}

    async def work(is_wire: bool) -> None:
        line = line_of(KEYS["predict"], "slow", ["predict"], rate=0.001, burst=2)
        async with serve(wire=is_wire, keys=line) as live:
            client, found = await live.connect(), []
            for _ in range(4):
                found.append(await client.ask(request(DOUBLE, BEARER)))
            found.append(await client.ask(request(DOUBLE, BEARER, body=b"{")))
            found.append(await client.ask(request("/v1/models", BEARER, method="GET", body=b"")))
            assert [answer.status for answer in found] == [200, 200, 429, 429, 429, 429]
            for answer in found[2:]:
                assert (answer.json["code"], answer.json["retryable"]) == ("rate_limited", True)
                assert 999 <= int(answer["retry-after"]) <= 1003
                answer.headers = [item for item in answer.headers if item[0] != "retry-after"]
            assert (await client.ask(request("/readyz", BEARER, method="GET", body=b""))).status == 299
            assert live.model.seen == [5, 5]
            assert await live.counted() == {"ok": 2, "rate_limited": 3}
            answers[is_wire] = found

    both(run, work)
    assert answers[True] == answers[False]


def test_jitter(run: Any, serve: Any) -> None:
    """Those who are refused together are not told to come back together."""

    async def work() -> None:
        async with serve(requests_per_second=0.001) as live:
            client = await live.connect()
            found = [(await client.ask(request(DOUBLE)))["retry-after"] for _ in range(60)]
            assert len(set(found[1:])) == 3

    run(work)


@pytest.mark.parametrize("more", [b"transfer-encoding: chunked", b"content-length: 99999999999"])
def test_limited_with_a_long_body(more: bytes, run: Any, serve: Any) -> None:
    """Of a body without a bound nothing is read to keep a connection."""

    async def work(is_wire: bool) -> None:
        async with serve(wire=is_wire, requests_per_second=0.001) as live:
            client = await live.connect()
            assert (await client.ask(request(DOUBLE))).status == 200
            answer = await client.ask(request(DOUBLE, more, body=b""))
            assert (answer.status, answer["connection"]) == (429, "close")
            assert await client.read() is None

    both(run, work)


def test_a_limited_body_is_not_kept(run: Any, serve: Any) -> None:
    """What a refused caller sends goes by: it is not collected."""

    async def work() -> None:
        async with serve(requests_per_second=0.001) as live:
            client = await live.connect()
            assert (await client.ask(request(DOUBLE))).status == 200
            whole = request(DOUBLE, body=b"x" * 500_000)
            await client.send(whole[:400_000])
            (connection,) = live.state.connections
            await live.until(lambda: connection.arriving is not None)
            assert sum(map(len, connection.arriving.parts)) == 0
            await client.send(whole[400_000:])
            assert (await client.read()).status == 429
            assert (await client.ask(request("/livez", method="GET", body=b""))).status == 299

    run(work)


def test_each_address(run: Any, serve: Any) -> None:
    """Without keys each address has its limit, whatever it says in its headers."""

    async def work(is_wire: bool) -> None:
        async with serve(wire=is_wire, requests_per_second=0.001) as live:
            statuses = []
            for number in range(3):
                client = await live.connect()
                for route in (DOUBLE, "/v1/models"):
                    headers = [b"x-forwarded-for: 10.0.0.%d" % number, b"x-api-key: %d" % number, b"expect: x"]
                    statuses.append((await client.ask(request(route, *headers))).status)
            assert statuses == [200, 429, 429, 429, 429, 429]
            assert len(live.front.context().access._addresses) == 1

    both(run, work)


def test_other_addresses(run: Any, serve: Any) -> None:
    """One address's flood is nothing to another."""
    seen = {}

    async def work() -> None:
        async with serve(requests_per_second=0.001) as live:
            transport = httpx.ASGITransport(live.front, client=("10.0.0.1", 1))
            other = httpx.ASGITransport(live.front, client=("10.0.0.2", 1))
            for name, end in (("one", transport), ("other", other)):
                async with httpx.AsyncClient(transport=end, base_url="http://x") as client:
                    seen[name] = [(await client.get("/v1/models")).status_code for _ in range(3)]

    run(work)
    assert seen == {"one": [200, 429, 429], "other": [200, 429, 429]}


def test_one_greedy_caller(run: Any, serve: Any) -> None:
    """Of ten callers one asks twenty times what it may: it gets what it may, and the nine get all they ask."""
    keys = [f"lectern_greedy_{number}" for number in range(10)]
    lines = ";".join(line_of(key, f"k{n}", ["predict"], rate=0.001, burst=20) for n, key in enumerate(keys))

    async def work(is_wire: bool) -> None:
        async with serve(wire=is_wire, keys=lines) as live:
            clients = [await live.connect() for _ in keys]
            asks = [request(DOUBLE, f"x-api-key: {key}".encode()) for key in keys]
            statuses: list[list[int]] = [[] for _ in keys]
            for _ in range(20):
                await clients[0].send(asks[0] * 20)
                for number in range(1, 10):
                    statuses[number].append((await clients[number].ask(asks[number])).status)
                for _ in range(20):
                    answer = await clients[0].read()
                    statuses[0].append(answer.status)
            assert [found.count(200) for found in statuses] == [20] * 10
            assert statuses[0].count(429) == 380
            assert await live.counted() == {"ok": 200, "rate_limited": 380}

    both(run, work)
