"""Orders that make no sense, and paths that lead elsewhere."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(60)
NOBODY = "0" * 32


BAD: list[tuple[dict[str, Any], int, str, list[Any]]] = [
    ({"model": None}, 422, "invalid_request", []),
    ({"model": "DOUBLE"}, 422, "invalid_request", ["model"]),
    ({"model": "nobody"}, 404, "unknown_model", []),
    ({"model": "double:9.9.9"}, 404, "unknown_version", []),
    ({"input": None}, 422, "invalid_request", []),
    ({"input": 5}, 422, "invalid_request", ["input"]),
    ({"output_format": "xml"}, 422, "invalid_request", ["output_format"]),
    ({"strange": 1}, 422, "invalid_request", []),
    ({"options": {"strange": 1}}, 422, "invalid_request", ["options"]),
    ({"options": {"part_rows": 0}}, 422, "invalid_request", ["options", "part_rows"]),
    ({"options": {"id_column": "a\x00b"}}, 422, "invalid_request", ["options", "id_column"]),
    ({"options": {"columns": {"a": "x" * 201}}}, 422, "invalid_request", ["options", "columns"]),
]


def test_bad_orders(run: Any, serve: Any, root: Path, api: Any) -> None:
    """What makes no sense is refused with its place, and no job is made of it."""

    async def work() -> None:
        async with serve(jobs_root=str(root)) as live:
            client = await live.connect()
            for changes, status, code, loc in BAD:
                told = api.problem(await client.ask(api.order(**changes)), status, code)
                assert not loc or told["errors"][0]["loc"][: len(loc)] == loc, (changes, told)
            api.problem(await client.ask(api.request("POST", "/v1/jobs", b"{")), 400, "malformed_request")
            api.problem(await client.ask(api.request("GET", "/v1/jobs?limit=0")), 422, "invalid_request")
            api.problem(await client.ask(api.request("GET", "/v1/jobs?strange=1")), 422, "invalid_request")
            api.problem(await client.ask(api.request("GET", f"/v1/jobs?before={NOBODY}")), 404, "unknown_job")
            api.problem(await client.ask(api.order(b"idempotency-key: a b")), 422, "invalid_request")
            other = await client.ask(api.request("POST", "/v1/jobs", b"{}", kind=b"text/plain"))
            api.problem(other, 415, "unsupported_media_type")
            assert live.front.jobs().store.all(None, 9) == []

    run(work)


HOSTILE = [
    "/etc/passwd", "../root/rows.jsonl", "sub/../../secret", "sub/../rows.jsonl", "..", "none", "link", "sub/link",
    "file:///etc/passwd", "s3://bucket/key", "zip://a::rows.jsonl", "a::b", "rows.jsonl/x", "pipe", "loop",
    "rows.jsonl\x00", "\ud800", "home", "x" * 1025, "", ".",
]  # fmt: skip


def test_hostile_paths(
    run: Any, serve: Any, root: Path, api: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what lies below the root is an input, and what lies elsewhere is not told from what is nowhere."""
    monkeypatch.setenv("BENTOML_HOME", str(root / "home"))  # even where ours lies below it
    (tmp_path / "secret").write_text("secret")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "sub" / "link").symlink_to(tmp_path)
    (root / "nowhere").symlink_to(tmp_path / "nowhere")
    (root / "loop").symlink_to(root / "loop")
    (root / "good").symlink_to(root / "sub" / "rows.csv")
    os.mkfifo(root / "pipe")

    async def work() -> None:
        async with serve(jobs_root=str(root)) as live:
            client = await live.connect()
            for name in HOSTILE:
                body = json.dumps({"model": "double", "input": name}).encode()
                answer = await client.ask(api.request("POST", "/v1/jobs", body))
                assert answer.status in ((400, 422) if name == "\ud800" else (422,)), name
                assert b"secret" not in answer.body
                assert str(tmp_path).encode() not in answer.body
            asked = [
                await client.ask(api.order(input=name)) for name in ("link", "nowhere", "none", "home/lectern-jobs")
            ]
            assert len({json.dumps(answer.json["errors"]) for answer in asked}) == 1
            assert (await client.ask(api.order(input="good"))).status == 202
            assert (await client.ask(api.order(input="sub"))).status == 202
            assert len(live.front.jobs().store.all(None, 9)) == 2

    run(work)
