"""What a served process refuses of jobs, how they fail, and that its document tells the truth about them."""

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis

from service.auth.api_keys import line_of, new_key
from tests.e2e.conftest import free_port
from tests.e2e.job_steps import submit, wait, write_inputs
from tests.e2e.test_openapi import ask

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage root."""
    return write_inputs(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def house(launch: Any, root: Path) -> Any:
    """One worker, without keys."""
    return launch(LECTERN_JOBS_ROOT=str(root), LECTERN_MODELS="tagging")


def test_what_fails(house: Any, root: Path) -> None:
    """An input that cannot be read at all fails the job in a sentence without a path of ours; the next one runs."""
    (root / "torn.parquet").write_bytes(b"PAR1 and no end")
    (root / "columns.csv").write_text("a,b\n1,2\n")
    for name in ("torn.parquet", "columns.csv"):
        job = wait(house, submit(house, name), "failed")
        assert job["reason"]
        assert str(root) not in job["reason"]
        assert str(house.home) not in job["reason"]
    many = wait(house, submit(house, options={"max_errors": 0}), "failed")
    assert many["code"] == "too_many_errors"
    assert house.client.get(f"/v1/jobs/{many['id']}/result").status_code == 409


def test_hostile_paths(house: Any, root: Path, tmp_path: Path) -> None:
    """Nothing outside the root can be scored."""
    (tmp_path / "secret.jsonl").write_text('{"text": "secret"}\n')
    (root / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    up = os.path.relpath(tmp_path / "secret.jsonl", root)
    for name in (str(tmp_path / "secret.jsonl"), up, "link.jsonl", "file://" + str(tmp_path), "a::few.jsonl", "."):
        answer = house.client.post("/v1/jobs", json={"model": "tagging", "input": name})
        if answer.status_code == 202:  # the root itself is a folder; it holds a link
            assert name == "."
            assert wait(house, answer.headers["location"], "failed")["reason"]
        else:
            assert answer.status_code == 422, name
            assert str(tmp_path) not in answer.text
    (root / "link.jsonl").unlink()


def test_keys(launch: Any, root: Path) -> None:
    """Without a key 401, with another role 403, somebody else's job 404."""
    keys = {name: new_key() for name in ("predict", "jobs", "other", "admin")}
    roles = {"other": "jobs"}
    lines = ";".join(line_of(key, name, [roles.get(name, name)]) for name, key in keys.items())
    server = launch(LECTERN_JOBS_ROOT=str(root), LECTERN_MODELS="tagging", LECTERN_KEYS=lines)

    def ask(method: str, path: str, name: str, **more: Any) -> httpx.Response:
        answer: httpx.Response = server.client.request(method, path, headers={"x-api-key": keys.get(name, "x")}, **more)
        return answer

    asked = {"model": "tagging", "input": "few.jsonl"}
    statuses = {name: ask("POST", "/v1/jobs", name, json=asked).status_code for name in ("nobody", *keys)}
    assert statuses == {"nobody": 401, "predict": 403, "jobs": 202, "other": 202, "admin": 403}
    (mine,) = ask("GET", "/v1/jobs", "jobs").json()["jobs"]
    position = f"/v1/jobs/{mine['id']}"
    for method, path in (("GET", position), ("DELETE", position), ("GET", f"{position}/result")):
        assert ask(method, path, "other").status_code == 404
        assert ask(method, path, "predict").status_code == 403
        assert ask(method, path, "nobody").status_code == 401
    assert len(ask("GET", "/v1/jobs", "admin").json()["jobs"]) == 2
    assert ask("GET", position, "admin").status_code == 200
    (child_log,) = [server.log.read_text()]
    assert not [key for key in keys.values() if key in child_log]


def test_root_must_be_there(run: Any, new_home: Any, tmp_path: Path) -> None:
    """A storage root that is none ends the start in one line."""
    settings = {"LECTERN_DEVICE": "cpu", "LECTERN_PORT": str(free_port()), "LECTERN_JOBS_ROOT": str(tmp_path / "none")}
    done = run("-m", "service", home=new_home(), timeout=20, **settings)
    assert done.returncode > 0
    assert json.loads(done.stderr)["message"].startswith("lectern: LECTERN_JOBS_ROOT: ")


def test_documented(house: Any) -> None:
    """Requests drawn from the document, right or wrong, are answered as it says; nothing of it is missing."""
    document = schemathesis.openapi.from_url(f"{house.url}/docs.json")
    position = submit(house, "few.jsonl")
    found = {operation.label: operation for operation in (one.ok() for one in document.get_all_operations())}
    labels = {label for label in found if "/v1/jobs" in label}
    assert labels == {
        "GET /v1/jobs",
        "POST /v1/jobs",
        "GET /v1/jobs/{id}",
        "DELETE /v1/jobs/{id}",
        "GET /v1/jobs/{id}/result",
    }
    statuses = {label: set(ask(found[label], 40)) for label in sorted(labels)}
    assert 422 in statuses["POST /v1/jobs"]
    assert statuses["GET /v1/jobs/{id}"] == {404}
    assert wait(house, position, "done")["rows"] == 2
