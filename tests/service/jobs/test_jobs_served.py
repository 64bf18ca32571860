"""A job's life at the socket, and its result in ranges, with nobody to run it."""

from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from service.jobs import download

pytestmark = pytest.mark.timeout(60)
NOBODY = "0" * 32


def test_off(run: Any, serve: Any, api: Any) -> None:
    """Without a storage root there are no jobs: the paths are unknown and not documented."""

    async def work() -> None:
        async with serve() as live:
            client = await live.connect()
            for path in ("/v1/jobs", f"/v1/jobs/{NOBODY}", f"/v1/jobs/{NOBODY}/result"):
                api.problem(await client.ask(api.request("GET", path)), 404, "unknown_route")
            api.problem(await client.ask(api.order()), 404, "unknown_route")
            assert not [
                path for path in (await client.ask(api.request("GET", "/docs.json"))).json["paths"] if "job" in path
            ]

    run(work)


@pytest.mark.parametrize("is_wire", [True, False])
def test_a_life(is_wire: bool, run: Any, serve: Any, root: Path, api: Any) -> None:
    """Submitted, seen, listed, without a result, with one, cancelled, forgotten."""

    async def work() -> None:
        async with serve(wire=is_wire, jobs_root=str(root)) as live:
            client = await live.connect()
            answer = await client.ask(api.order(options={"max_errors": 3}))
            page = answer.json
            assert answer.status == 202
            assert answer["location"] == f"/v1/jobs/{page['id']}"
            assert (page["state"], page["model"], page["input"]) == ("queued", "double:1.0.0", "rows.jsonl")
            assert (page["options"], page["owner"], page["output"], page["started"]) == (
                {"max_errors": 3},
                "",
                None,
                None,
            )
            position = answer["location"]
            assert (await client.ask(api.request("GET", position))).json == page
            second = (await client.ask(api.order(input="sub/rows.csv", output_format="csv"))).json
            assert (await client.ask(api.request("GET", "/v1/jobs"))).json == {"jobs": [second, page]}
            assert (await client.ask(api.request("GET", "/v1/jobs?limit=1"))).json == {"jobs": [second]}
            older = await client.ask(api.request("GET", f"/v1/jobs?limit=5&before={second['id']}"))
            assert older.json == {"jobs": [page]}
            early = await client.ask(api.request("GET", f"{position}/result"))
            assert api.problem(early, 409, "job_unfinished")["retryable"]
            assert int(early["retry-after"]) > 0
            sha256 = api.done(live, page["id"], b"0123456789")
            assert (await client.ask(api.request("GET", position))).json["output"] == {"bytes": 10, "sha256": sha256}
            assert (await client.ask(api.request("GET", f"{position}/result"))).body == b"0123456789"
            gone = await client.ask(api.request("DELETE", f"/v1/jobs/{second['id']}"))
            assert (gone.status, gone.json["state"]) == (200, "cancelled")
            api.problem(await client.ask(api.request("GET", f"/v1/jobs/{second['id']}/result")), 409, "job_unfinished")
            await client.send(api.request("DELETE", position))
            forgotten = await client.read(is_head=True)
            assert forgotten is not None
            assert (forgotten.status, forgotten["content-length"]) == (204, None)
            api.problem(await client.ask(api.request("GET", position)), 404, "unknown_job")
            api.problem(await client.ask(api.request("DELETE", position)), 404, "unknown_job")
            assert not live.front.jobs().paths.folder(page["id"]).exists()
            assert (root / "rows.jsonl").exists()

    run(work)


CONTENT = bytes(range(256)) * 2000
RANGES: list[tuple[str, int, slice]] = [
    ("bytes=0-0", 206, slice(0, 1)),
    ("bytes=5-9", 206, slice(5, 10)),
    ("bytes=511990-", 206, slice(511990, None)),
    ("bytes=-7", 206, slice(-7, None)),
    ("bytes=-999999999", 206, slice(None)),
    ("bytes=0-999999999", 206, slice(None)),
    ("bytes=100000-499999", 206, slice(100000, 500000)),
    ("bytes=512000-", 416, slice(0)),
    ("bytes=-0", 416, slice(0)),
    ("bytes=999999-1000000", 416, slice(0)),
    ("bytes=9-5", 200, slice(None)),
    ("bytes=-", 200, slice(None)),
    ("bytes=1-2,4-5", 200, slice(None)),
    ("lines=1-2", 200, slice(None)),
    ("bytes=a-b", 200, slice(None)),
    ("bytes=" + "9" * 400 + "-", 200, slice(None)),
]


@pytest.mark.parametrize("is_wire", [True, False])
def test_ranges(is_wire: bool, run: Any, serve: Any, root: Path, api: Any) -> None:
    """Every part of a result can be had by itself; If-Range gets the whole one when it has another digest."""

    async def work() -> None:
        async with serve(wire=is_wire, jobs_root=str(root)) as live:
            client = await live.connect()
            page = (await client.ask(api.order())).json
            position, etag = f"/v1/jobs/{page['id']}/result", f'"{api.done(live, page["id"], CONTENT)}"'
            for asked, status, part in RANGES:
                answer = await client.ask(api.request("GET", position, b"", f"range: {asked}".encode()))
                assert answer.status == status, asked
                if status == 416:
                    assert answer["content-range"] == "bytes */512000"
                    api.problem(answer, 416, "range_not_satisfiable")
                    continue
                assert answer.body == CONTENT[part], asked
                assert answer["etag"] == etag
                assert answer["accept-ranges"] == "bytes"
                start = CONTENT[: len(CONTENT)].index(answer.body) if status == 206 and len(answer.body) > 256 else None
                if status == 206 and part == slice(100000, 500000):
                    assert answer["content-range"] == "bytes 100000-499999/512000"
                assert start is None or start >= 0
            for stamp, status in ((etag, 206), ('"other"', 200), (f"W/{etag}", 200)):
                headers = (b"range: bytes=1-2", f"if-range: {stamp}".encode())
                assert (await client.ask(api.request("GET", position, b"", *headers))).status == status
            await client.send(api.request("HEAD", position, b"", b"range: bytes=1-2"))
            head = await client.read(is_head=True)
            assert head is not None
            assert (head.status, head["content-length"], head["etag"]) == (200, "512000", etag)
            assert (await client.ask(api.request("GET", "/v1/models"))).status == 200

    run(work)


def test_an_empty_result(run: Any, serve: Any, root: Path, api: Any) -> None:
    """No rows are a result too."""

    async def work() -> None:
        async with serve(jobs_root=str(root)) as live:
            client = await live.connect()
            page = (await client.ask(api.order())).json
            api.done(live, page["id"], b"")
            answer = await client.ask(api.request("GET", f"/v1/jobs/{page['id']}/result"))
            assert (answer.status, answer.body) == (200, b"")

    run(work)


def test_who_leaves_a_download(run: Any, serve: Any, root: Path, api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that goes away in the middle stops the reading."""
    read, parts = download._read, []

    async def count(*arguments: Any) -> bytes:
        parts.append(arguments)
        return await read(*arguments)

    monkeypatch.setattr(download, "_read", count)

    async def work() -> None:
        async with serve(jobs_root=str(root)) as live:
            client = await live.connect(receive_buffer=4096)
            page = (await client.ask(api.order())).json
            api.done(live, page["id"], CONTENT * 100)
            await client.send(api.request("GET", f"/v1/jobs/{page['id']}/result"))
            await live.until(lambda: len(parts) > 0)  # its headers alone may come before anything is read
            client.reset()
            await live.until(lambda: not live.state.connections)
            await live.until(lambda: not live.state.tasks)
            assert 0 < len(parts) < 100 * len(CONTENT) // download.PART_BYTES // 2

    run(work)


@pytest.mark.parametrize(
    ("path", "method", "allowed"),
    [
        ("/v1/jobs", "DELETE", "GET, HEAD, POST"),
        ("/v1/jobs", "PUT", "GET, HEAD, POST"),
        (f"/v1/jobs/{NOBODY}", "POST", "GET, HEAD, DELETE"),
        (f"/v1/jobs/{NOBODY}", "OPTIONS", "GET, HEAD, DELETE"),
        (f"/v1/jobs/{NOBODY}/result", "DELETE", "GET, HEAD"),
        (f"/v1/jobs/{NOBODY}/result", "PATCH", "GET, HEAD"),
    ],
)
def test_methods(path: str, method: str, allowed: str, run: Any, serve: Any, root: Path, api: Any) -> None:
    """A method that is not there is refused with those that are."""

    async def work() -> None:
        async with serve(jobs_root=str(root)) as live:
            answer = await (await live.connect()).ask(api.request(method, path))
            api.problem(answer, 405, "method_not_allowed")
            assert answer["allow"] == allowed

    run(work)


PATHS = ("/v1/jobs/", "/v1/jobs/x", f"/v1/jobs/{NOBODY}/", f"/v1/jobs/{NOBODY}/results", f"/v1/jobs/{NOBODY.upper()}x")


@pytest.mark.parametrize("path", PATHS)
def test_unknown_paths(path: str, run: Any, serve: Any, root: Path, api: Any) -> None:
    """The routes are closed; nothing near them reaches BentoML, and no job is a label of a metric."""

    async def work() -> None:
        async with serve(jobs_root=str(root)) as live:
            client = await live.connect()
            for method in ("GET", "POST", "DELETE"):
                api.problem(await client.ask(api.request(method, path)), 404, "unknown_route")
            page = (await client.ask(api.order())).json
            await client.ask(api.request("GET", f"/v1/jobs/{page['id']}"))
            assert page["id"].encode() not in generate_latest()

    run(work)
