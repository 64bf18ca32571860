"""Jobs at the socket: a storage root, and how to ask."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.jobs import scheduler as module
from service.jobs.store import JobState
from tests.service.jobs.yard import Yard

PROBLEM = {"status", "code", "error", "request_id", "retryable", "errors"}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A storage root with two inputs; the home is elsewhere."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "home"))
    folder = tmp_path / "root"
    (folder / "sub").mkdir(parents=True)
    (folder / "rows.jsonl").write_text("{}\n")
    (folder / "sub" / "rows.csv").write_text("a\n1\n")
    return folder


def request(method: str, path: str, body: bytes = b"", *headers: bytes, kind: bytes = b"application/json") -> bytes:
    told = [b"content-type: " + kind, b"content-length: %d" % len(body)] if body else []
    return b"\r\n".join((f"{method} {path} HTTP/1.1".encode(), b"host: x", *told, *headers, b"", body))


def order(*headers: bytes, **changes: Any) -> bytes:
    asked = {"model": "double", "input": "rows.jsonl", **changes}
    return request("POST", "/v1/jobs", json.dumps({k: v for k, v in asked.items() if v is not None}).encode(), *headers)


def problem(answer: Any, status: int, code: str) -> Any:
    assert answer is not None
    assert (answer.status, answer["content-type"]) == (status, "application/problem+json"), answer
    assert answer.json.keys() == PROBLEM
    assert answer.json["code"] == code, answer
    return answer.json


def done(live: Any, identity: str, content: bytes) -> str:
    """Give a job its result, as the foreman would."""
    jobs = live.front.jobs()
    jobs.paths.output(jobs.store.get(identity, None)).write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    jobs.store.change(
        identity, {"state": JobState.DONE, "ended": 1e10, "output_bytes": len(content), "output_sha256": sha256}
    )
    return sha256


def folders(live: Any) -> int:
    return len(list((live.front.jobs().paths.state / "jobs").iterdir()))


@pytest.fixture(scope="session")
def api() -> SimpleNamespace:
    """All of that."""
    return SimpleNamespace(request=request, order=order, problem=problem, done=done, folders=folders)


@pytest.fixture
def make_yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Yard]:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(module, "SAVE_SECONDS", 0.02)
    monkeypatch.setattr(module, "TROUBLE_SECONDS", 0.1)
    monkeypatch.setattr(module, "REST_SECONDS", {JobState.PAUSED: 0.1, JobState.PAUSED_NO_SPACE: 0.1})
    # One at a time, so that what runs is known.
    return lambda **settings: Yard(tmp_path, **{"jobs_running": 1, **settings})
