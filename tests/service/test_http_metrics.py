"""What is counted of HTTP: every answer by its status, whoever wrote it; requests under way; bytes; and keys."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from models.errors import Forbidden, HttpError, Unauthenticated
from service.auth.access import Access
from service.auth.api_keys import PREDICT, line_of
from service.settings import Settings
from service.telemetry.http_metrics import OTHER, STATUSES

GET = b"GET %b HTTP/1.1\r\nhost: x\r\n%b\r\n"
POST = b"POST /v1/models/double/predict HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n"
MODEL = {"model": "double"}
ALICE = "lectern_" + "a" * 43


def kinds(error: type[HttpError] = HttpError) -> Iterator[type[HttpError]]:
    yield error
    for kind in error.__subclasses__():
        yield from kinds(kind)


def value(name: str, **labels: str) -> float:
    """Return a series now, over the other labels."""
    samples = (sample for metric in REGISTRY.collect() for sample in metric.samples)
    return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())


def statuses() -> dict[str, int]:
    found = {status: int(value("lectern_http_responses_total", status=status)) for status in STATUSES}
    return {status: count for status, count in found.items() if count}


def grown(before: dict[str, int]) -> dict[str, int]:
    now = statuses()
    return {status: now[status] - before.get(status, 0) for status in now if now[status] != before.get(status, 0)}


def test_every_status_has_a_series() -> None:
    """Whatever error there is, its status is counted by its number; what nobody knows is ``other``."""
    assert {str(kind.status) for kind in kinds()} <= {*STATUSES}
    assert value("lectern_http_responses_total", status=OTHER) >= 0


@pytest.mark.parametrize("wire", [True, False], ids=["wire", "front"])
@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"", "200"),
        (GET % (b"/v1/models/double", b""), "200"),
        (GET % (b"/v1/models/gpt", b""), "404"),
        (GET % (b"/nothing/here", b""), "404"),
        (GET % (b"/v1/models/double/predict", b""), "405"),
        (GET % (b"/healthz", b""), "other"),  # BentoML's stand-in says 299
        (b"no HTTP at all\r\n\r\n", "400"),
        (b"GET / HTTP/1.1\r\n\r\n", "400"),
        (GET % (b"/", b"x: y\r\n" * 300), "431"),
        (POST % (b"content-type: application/json\r\n", 99999999), "413"),
        (POST % (b"", 2) + b"{}", "415"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_every_answer_is_counted(
    request_bytes: bytes, status: str, wire: bool, serve: Any, run: Any, post: Callable[..., bytes]
) -> None:
    """One answer is one more of its status, on any path, on the short way and the long one."""

    async def work() -> None:
        async with serve(wire=wire) as live:
            client, before = await live.connect(), statuses()
            answer = await client.ask(request_bytes or post(4))
            assert grown(before) == {status: 1}
            assert status in (str(answer.status), OTHER)

    run(work)


def test_a_timeout_is_counted(serve: Any, run: Any) -> None:
    """Headers that never end are answered below ASGI, with 408."""

    async def work() -> None:
        async with serve(body_timeout_seconds=0.1) as live:
            client, before = await live.connect(), statuses()
            answer = await client.ask(b"GET / HTTP/1.1\r\nhost:")
            assert (answer.status, grown(before)) == (408, {"408": 1})

    run(work)


def test_without_a_key(serve: Any, run: Any, post: Callable[..., bytes]) -> None:
    """Who has no key, or one that may not do this, is counted on pages as at models."""
    metrics = "lectern_" + "m" * 43
    keys = line_of(metrics, "scraper", ["metrics"])

    async def work() -> None:
        async with serve(keys=keys) as live:
            client, before = await live.connect(), statuses()
            for request in (post(1), GET % (b"/v1/jobs", b""), GET % (b"/nothing", b"")):
                assert (await client.ask(request)).status == 401
                client = await live.connect()
            assert (await client.ask(GET % (b"/v1/models", b"x-api-key: %b\r\n" % metrics.encode()))).status == 403
            assert grown(before) == {"401": 3, "403": 1}

    run(work)
    assert value("lectern_key_requests_total", key="scraper", outcome="forbidden") == 1


@pytest.mark.parametrize("wire", [True, False], ids=["wire", "front"])
def test_in_flight(wire: bool, serve: Any, run: Any, post: Callable[..., bytes]) -> None:
    """A request counts from its headers until it is answered, refused or abandoned, and never after."""

    async def work() -> None:
        async with serve(wire=wire, queue_limit=1) as live:
            before = value("lectern_requests_in_flight", **MODEL)

            def open_now() -> float:
                return value("lectern_requests_in_flight", **MODEL) - before

            plugged = await live.plug()
            assert open_now() == 1
            half, waiting, leaving = [await live.connect() for _ in range(3)]
            await waiting.send(post(1))
            await live.until(lambda: open_now() == 2)
            await half.send(post(2)[:-5])
            await live.until(lambda: open_now() == 3)
            assert (await leaving.ask(post(3))).status == 503
            assert open_now() == 3
            half.reset()
            await live.until(lambda: open_now() == 2)
            live.model.gate.set()
            assert [(await one.read()).y for one in (plugged, waiting)] == [1, 3]
            assert open_now() == 0

    run(work)


@pytest.mark.parametrize("wire", [True, False], ids=["wire", "front"])
def test_bytes(wire: bool, serve: Any, run: Any, post: Callable[..., bytes]) -> None:
    """Bodies of requests that were read, and of answers that are no errors, to the byte."""
    body, names = b'{"instances": [4, 5, 6]}', ("lectern_request_body_bytes_total", "lectern_response_body_bytes_total")

    async def work() -> None:
        async with serve(wire=wire) as live:
            before = [value(name, **MODEL) for name in names]
            client = await live.connect()
            answer = await client.ask(post(0, body=body))
            assert (await client.ask(post(0, body=b"{"))).status == 400
            received, sent = (value(name, **MODEL) - old for name, old in zip(names, before, strict=True))
            assert (received, sent) == (len(body) + 1, len(answer.body))

    run(work)


@pytest.mark.parametrize("wire", [True, False], ids=["wire", "front"])
def test_keys(wire: bool, serve: Any, run: Any, post: Callable[..., bytes]) -> None:
    """Each request counts once for its key: as let in, also where it is wrong otherwise, or as too often."""
    name = f"alice-{wire}"
    keys, header = line_of(ALICE, name, ["predict"], rate=0.001, burst=3), b"x-api-key: %b\r\n" % ALICE.encode()

    async def work() -> None:
        async with serve(wire=wire, keys=keys) as live:
            client = await live.connect()
            assert (await client.ask(post(4, headers=header))).y == 9
            assert (await client.ask(post(4, headers=header, body=b"{"))).status == 400
            assert (await client.ask(GET % (b"/v1/models/double", header))).status == 200
            assert (await client.ask(post(4, headers=header))).status == 429

    run(work)
    found = {one: value("lectern_key_requests_total", key=name, outcome=one) for one in ("allowed", "rate_limited")}
    assert found == {"allowed": 3, "rate_limited": 1}


def test_strangers_have_no_series() -> None:
    """A key that nobody knows makes no series: their names are those of the keys."""
    access = Access(Settings(keys=line_of(ALICE, "known", ["predict"])))
    before = value("lectern_key_requests_total")
    for number in range(5):
        headers = [(b"x-api-key", b"stranger-%d" % number)]
        with pytest.raises(Unauthenticated):
            access.check(PREDICT, headers, dict(headers), None)
        assert access.refuse("/v1/models", headers, None) is not None
    assert value("lectern_key_requests_total") == before
    with pytest.raises(Forbidden):
        access.check(1 << 20, [(b"x-api-key", ALICE.encode())], {b"x-api-key": ALICE.encode()}, None)


def test_a_broken_file_of_keys(tmp_path: Path) -> None:
    """It is 1 from the reading that fails until one succeeds; the same file back again is read again."""
    file, line = tmp_path / "keys", line_of(ALICE, "filed", ["predict"])
    file.write_text(line)
    access = Access(Settings(keys_file=str(file)))
    found = []
    for text in (line + "\nbroken", line + "\n# mended"):
        file.write_text(text)
        access.reload()
        found.append(value("lectern_keys_file_error"))
        access.reload()
        found.append(value("lectern_keys_file_error"))
    aside = file.rename(tmp_path / "aside")
    access.reload()
    found.append(value("lectern_keys_file_error"))
    aside.rename(file)
    access.reload()
    found.append(value("lectern_keys_file_error"))
    assert found == [1, 1, 0, 0, 1, 0]
