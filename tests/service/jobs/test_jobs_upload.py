"""Inputs that come with the request, and requests that come twice."""

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import fields

from service.jobs.job_request import RequestOptions, _CommonFields
from service.scoring import options

pytestmark = pytest.mark.timeout(60)


# Uploads

UPLOAD = "/v1/jobs?model=double&format=csv"


def test_options_of_the_command_line() -> None:
    """What may be said of a series, or of a file sent along, on the command line, may be said over REST."""
    asked = {field.name: field for field in fields(_CommonFields)}
    assert [name for name in options.SAID if name not in asked] == []
    for name, saying in options.SAID.items():
        kind = msgspec.json.schema(asked[name].type)["anyOf"][0]
        assert (kind.get("enum"), kind.get("minimum"), kind.get("maximum")) == (
            sorted(saying.choices) if saying.choices else None,
            *(saying.bounds or (None, None)),
        )
    assert RequestOptions(every_day=False, header=True).arguments() == ["--header"]


@pytest.mark.parametrize("is_wire", [True, False])
def test_uploads(is_wire: bool, run: Any, serve: Any, root: Path, api: Any) -> None:
    """A body of any type, at once or in chunks, is the input, byte for byte."""

    async def work() -> None:
        async with serve(wire=is_wire, jobs_root=str(root)) as live:
            client, content = await live.connect(), bytes(range(256)) * 9000
            chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (content[:7], content[7:])) + b"0\r\n\r\n"
            asked_for = "&id_column=a%20b&delimiter=%3B&decimal=,&encoding=latin-1&header=false"
            asked_for += "&date_column=Tag&gaps=zero&horizon=14&every_day=true"
            whole = api.request("POST", UPLOAD + asked_for, content, kind=b"text/csv")
            chunked = api.request("POST", UPLOAD, b"", b"transfer-encoding: chunked") + chunks
            for asked in (whole, chunked):
                answer = await client.ask(asked)
                assert answer.status == 202, answer
                page, jobs = answer.json, live.front.jobs()
                job = jobs.store.get(page["id"], None)
                assert jobs.paths.input(job).read_bytes() == content
                assert (jobs.paths.input(job).name, page["input"]) == ("input.csv", None)
            assert jobs.store.all(None, 9)[1].options.arguments() == [
                "--id-column=a b", "--delimiter=;", "--decimal=,", "--encoding=latin-1", "--no-header",
                "--date-column=Tag", "--gaps=zero", "--horizon=14", "--every-day",
            ]  # fmt: skip

    run(work)


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/v1/jobs?model=double", (), 422, "invalid_request"),
        ("/v1/jobs?model=double&format=exe", (), 422, "invalid_request"),
        ("/v1/jobs?model=double&format=csv&format=csv", (), 422, "invalid_request"),
        ("/v1/jobs?model=double&format=csv&strange=1", (), 422, "invalid_request"),
        ("/v1/jobs?model=double&format=csv&horizon=29", (), 422, "invalid_request"),
        ("/v1/jobs?model=double&format=csv&gaps=guess", (), 422, "invalid_request"),
        ("/v1/jobs?model=double&format=../../x", (), 422, "invalid_request"),
        ("/v1/jobs?" + "&".join(f"a{n}=1" for n in range(99)), (), 422, "invalid_request"),
        ("/v1/jobs?model=%ff&format=csv", (), 422, "invalid_request"),
        ("/v1/jobs?model=nobody&format=csv", (), 404, "unknown_model"),
        (UPLOAD, (b"content-encoding: gzip",), 415, "unsupported_media_type"),
    ],
)
def test_bad_uploads(
    path: str, headers: tuple[bytes, ...], status: int, code: str, run: Any, serve: Any, root: Path, api: Any
) -> None:
    """What makes no sense is refused before the body, and the connection closes."""

    async def work() -> None:
        async with serve(jobs_root=str(root)) as live:
            client = await live.connect()
            told = api.request("POST", path, b"", *headers, b"content-length: 10")
            api.problem(await client.ask(told), status, code)
            assert await client.read() is None
            assert api.folders(live) == 0

    run(work)


def test_too_long(run: Any, serve: Any, root: Path, api: Any) -> None:
    """An upload is refused when it says that it is too long, and as soon as it is; nothing of it stays."""

    async def work() -> None:
        async with serve(jobs_root=str(root), jobs_upload_bytes=2048) as live:
            chunk = b"transfer-encoding: chunked"
            body = b"800\r\n" + b"x" * 2048 + b"\r\n"
            good = await (await live.connect()).ask(api.request("POST", UPLOAD, b"", chunk) + body + b"0\r\n\r\n")
            assert good.status == 202
            for asked in (
                api.request("POST", UPLOAD, b"", b"content-length: 2049"),
                api.request("POST", UPLOAD, b"", chunk) + body + b"1\r\nx\r\n",
            ):
                client = await live.connect()
                api.problem(await client.ask(asked), 413, "body_too_large")
                assert await client.read() is None
            assert api.folders(live) == 1

    run(work)


def test_too_slow_or_gone(run: Any, serve: Any, root: Path, api: Any) -> None:
    """Who stops sending is told so, and who goes away leaves nothing."""

    async def work() -> None:
        async with serve(jobs_root=str(root), body_timeout_seconds=0.2) as live:
            slow, gone = await live.connect(), await live.connect()
            head = api.request("POST", UPLOAD, b"", b"content-length: 100")
            api.problem(await slow.ask(head + b"a"), 408, "request_timeout")
            await gone.send(head + b"a")
            await live.until(lambda: api.folders(live) == 1)
            gone.close()
            await live.until(lambda: api.folders(live) == 0)

    run(work)


def test_disk_full(run: Any, serve: Any, root: Path, api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is a 507 that may be tried again; nothing of the upload stays."""

    def write(position: int, content: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def work() -> None:
        async with serve(jobs_root=str(root)) as live:
            client = await live.connect()
            with monkeypatch.context() as patch:
                patch.setattr("service.jobs.upload.os", type("Os", (), {**vars(os), "write": staticmethod(write)}))
                told = api.problem(await client.ask(api.request("POST", UPLOAD, b"abc")), 507, "storage_full")
            assert told["retryable"]
            assert api.folders(live) == 0

    run(work)


# Idempotency


@pytest.mark.parametrize("is_upload", [False, True])
def test_idempotency(is_upload: bool, run: Any, serve: Any, root: Path, api: Any) -> None:
    """The same key and payload is the same job, however it is written down; another payload is refused."""

    def ask(key: bytes, mark: str) -> bytes:
        header = b"idempotency-key: " + key
        if is_upload:
            return api.request("POST", UPLOAD, mark.encode(), header)
        return api.order(header, input={"a": "rows.jsonl", "b": "sub/rows.csv"}[mark])

    async def work() -> None:
        async with serve(jobs_root=str(root)) as live:
            client = await live.connect()
            first = await client.ask(ask(b"k", "a"))
            again = await client.ask(ask(b"k", "a"))
            assert (first.status, again.status) == (202, 200)
            assert first.json == again.json
            assert first["location"] == again["location"]
            client = await live.connect()
            api.problem(await client.ask(ask(b"k", "b")), 422, "idempotency_mismatch")
            client = await live.connect()
            other = await client.ask(ask(b"l", "b"))
            assert other.json["id"] != first.json["id"]
            if not is_upload:
                spaced = b'{ "options": {}, "input": "rows.jsonl", "model": "double", "output_format": "jsonl" }'
                same = await client.ask(api.request("POST", "/v1/jobs", spaced, b"idempotency-key: k"))
                assert same.json == first.json
                (root / "rows.jsonl").unlink()
                assert (await client.ask(ask(b"k", "a"))).json == first.json
            assert api.folders(live) == 2

    run(work)


@pytest.mark.parametrize("is_upload", [False, True])
def test_racing_submits(is_upload: bool, run: Any, serve: Any, root: Path, api: Any) -> None:
    """Of fifty submits at once with one key one makes the job, ten times over."""

    async def work() -> None:
        async with serve(jobs_root=str(root), jobs_queued=10) as live:
            clients = [await live.connect() for _ in range(50)]
            for number in range(10):
                header = b"idempotency-key: %d" % number
                asked = api.request("POST", UPLOAD, b"abc", header) if is_upload else api.order(header)
                answers = await asyncio.gather(*(client.ask(asked) for client in clients))
                assert sorted(answer.status for answer in answers) == [200] * 49 + [202]
                assert len({answer.json["id"] for answer in answers}) == 1
            assert api.folders(live) == 10
            api.problem(await clients[0].ask(api.order()), 503, "overloaded")
            assert api.folders(live) == 10

    run(work)
