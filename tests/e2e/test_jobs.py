"""Jobs of a served process: the command line's bytes, whatever becomes of whoever runs them on the way."""

import hashlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.paths import REPOSITORY
from tests.e2e.conftest import clean_environment, end, free_port, start, tree
from tests.e2e.job_steps import ROWS, first_scorer, none_left, scorers, submit, wait, wait_begun, write_inputs

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage root."""
    return write_inputs(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def house(launch: Any, root: Path) -> Any:
    """Two workers, for tests that leave them alive; one job at a time, so that others wait behind it."""
    settings = {"LECTERN_WORKERS": "2", "LECTERN_JOBS_RUNNING": "1", "LECTERN_MODELS": "tagging,viewcount"}
    return launch(LECTERN_JOBS_ROOT=str(root), **settings)


@pytest.fixture(scope="module")
def expected(house: Any, root: Path, run: Any, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What the command line makes of the rows."""
    target = tmp_path_factory.mktemp("out") / "out.jsonl"
    source = str(root / "rows.jsonl")
    done = run("-m", "service.scoring", "run", "tagging", source, str(target), "--quiet", home=house.home, timeout=200)
    assert done.returncode == 0, done.stderr
    content = target.read_bytes()
    assert content.count(b"\n") == ROWS
    return content


@pytest.fixture
def lone(new_home: Callable[[], Path], root: Path) -> Iterator[Callable[..., Any]]:
    """Starts a server on one home again and again."""
    home, port = new_home(), 0
    running: list[Any] = []

    def launch_again(**settings: str) -> Any:
        nonlocal port
        port = port or free_port()
        wanted = {"LECTERN_DEVICE": "cpu", "LECTERN_PORT": str(port), "LECTERN_MODELS": "tagging"}
        wanted |= {"LECTERN_JOBS_ROOT": str(root), "LECTERN_WORKERS": "2"} | settings
        running.append(start(["service"], clean_environment(home, **wanted), port, REPOSITORY, home))
        return running[-1]

    yield launch_again
    for one in running:
        one.stop()


def test_the_command_lines_bytes(house: Any, expected: bytes) -> None:
    """A job goes on in sight of its caller and ends with the bytes of the command line, whole and in ranges."""
    position = submit(house, output_format="jsonl")
    seen = wait_begun(house, position)
    assert seen["rows"] < ROWS
    job = wait(house, position, "done")
    assert (job["rows"], job["rows_total"], job["errors"]) == (ROWS, ROWS, ROWS // 1000)
    assert job["output"] == {"bytes": len(expected), "sha256": hashlib.sha256(expected).hexdigest()}
    whole = house.client.get(f"{position}/result")
    assert whole.content == expected
    parts, step = [], len(expected) // 7 + 1
    for first in range(0, len(expected), step):
        headers = {"range": f"bytes={first}-{first + step - 1}", "if-range": whole.headers["etag"]}
        part = house.client.get(f"{position}/result", headers=headers)
        assert part.status_code == 206
        parts.append(part.content)
    assert b"".join(parts) == expected
    beyond = house.client.get(f"{position}/result", headers={"range": f"bytes={len(expected)}-"})
    assert beyond.status_code == 416
    assert house.client.head(f"{position}/result").headers["content-length"] == str(len(expected))
    assert house.client.delete(position).status_code == 204
    assert house.client.get(position).status_code == 404


@pytest.mark.parametrize("output_format", ["jsonl", "csv", "parquet"])
def test_an_upload(output_format: str, house: Any, root: Path) -> None:
    """A file sent along is scored as one below the root is."""
    content = (root / "few.jsonl").read_bytes()
    query = {"model": "tagging", "format": "jsonl", "output_format": output_format}
    sent = house.client.post("/v1/jobs", params=query, content=content)
    assert sent.status_code == 202, sent.text
    results = []
    for position in (sent.headers["location"], submit(house, "few.jsonl", output_format=output_format)):
        job = wait(house, position, "done")
        assert (job["rows"], job["errors"]) == (2, 1)
        results.append(house.client.get(f"{position}/result").content)
    assert results[0] == results[1]
    assert results[0]


def test_a_series(house: Any, root: Path, run: Any, tmp_path: Path) -> None:
    """A table of days and views, sent along or below the root, is forecast as the command line does, and told of."""
    days = [f"{date(2024, 1, 1) + timedelta(days=day)};{1000 + 10 * day}" for day in range(80) if day != 40]
    (root / "views.csv").write_text("Tag;Aufrufe\n" + "\n".join(days) + "\n")
    said = {"date_column": "Tag", "gaps": "interpolate", "horizon": 14, "every_day": True}
    query = {"model": "viewcount", "format": "csv", **said}
    sent = house.client.post("/v1/jobs", params=query, content=(root / "views.csv").read_bytes())
    assert sent.status_code == 202, sent.text
    target = tmp_path / "out.jsonl"
    words = ["--date-column", "Tag", "--gaps", "interpolate", "--horizon", "14", "--every-day", "--quiet"]
    source = str(root / "views.csv")
    done = run("-m", "service.scoring", "run", "viewcount", source, str(target), *words, home=house.home, timeout=200)
    assert done.returncode == 0, done.stderr
    assert target.read_bytes().count(b"\n") == 80 - 55
    for position in (sent.headers["location"], submit(house, "views.csv", model="viewcount", options=said)):
        job = wait(house, position, "done")
        assert job["notes"] == [
            "the views are 'Aufrufe'",
            "1 of 80 days were missing, the first 2024-02-10; --gaps interpolate",
        ]
        assert house.client.get(f"{position}/result").content == target.read_bytes()
    refused = submit(house, "views.csv", model="viewcount", options={"date_column": "Tag"})
    job = wait(house, refused, "failed")
    assert job["reason"].startswith("views.csv: found no views for 2024-02-10")


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_the_service_ends_in_the_middle(how: str, lone: Any, expected: bytes) -> None:
    """Told to end or killed at once, the service takes its children along, and the next one finishes the job."""
    server = lone()
    position = submit(server, options={"part_rows": 100})
    before = wait_begun(server, position)["rows"]
    if how == "stopped":
        started = time.monotonic()
        end(server.process, patience=25)
        assert time.monotonic() - started < 20
    else:
        for one in tree(server.process.pid):
            if "service.scoring" not in one.cmdline():
                one.kill()
        server.process.wait(10)
    assert none_left(server.home)
    server = lone()
    assert server.page(position)["rows"] >= before
    wait(server, position, "done")
    assert server.client.get(f"{position}/result").content == expected


def test_a_killed_worker(lone: Any, expected: bytes) -> None:
    """When the worker that runs a job dies another one takes it over, and it never runs twice at once."""
    server = lone()
    position, most, is_over = submit(server, options={"part_rows": 100}), 0, threading.Event()

    def count() -> None:
        nonlocal most
        while not is_over.wait(0.05):
            with suppress(ProcessLookupError):
                most = max(most, len({os.getpgid(one.pid) for one in scorers(server.home)}))

    watching = threading.Thread(target=count)
    wait_begun(server, position)
    watching.start()
    try:
        child = first_scorer(server.home)
        for _ in range(2):
            os.kill(child.ppid(), signal.SIGKILL)
            started, child = time.monotonic(), first_scorer(server.home, but=child.pid)
            sys.stdout.write(f"taken over after {time.monotonic() - started:.2f} s\n")
        wait(server, position, "done")
    finally:
        is_over.set()
        watching.join()
    assert most == 1
    assert server.client.get(f"{position}/result").content == expected


def test_cancelled(house: Any) -> None:
    """A cancelled job's processes end and its files go; what waited behind it runs."""
    position, other = submit(house), submit(house, "few.jsonl")
    wait_begun(house, position)
    child = first_scorer(house.home)
    assert house.client.delete(position).json()["state"] == "cancelled"
    child.wait(5)
    wait(house, other, "done")
    assert not (house.home / "lectern-jobs" / "jobs" / position.rsplit("/", 1)[1]).exists()
    assert house.page(position)["state"] == "cancelled"


def test_racing_submits(house: Any) -> None:
    """Fifty submits at once, on connections to both workers, make one job; ten times over."""
    for number in range(10):
        answers: list[httpx.Response] = []
        ready = threading.Barrier(50)

        def ask(key: str, ready: threading.Barrier, answers: list[httpx.Response]) -> None:
            with httpx.Client(base_url=house.url, trust_env=False, timeout=60) as client:
                client.get("/livez")
                ready.wait()
                asked = {"model": "tagging", "input": "few.jsonl"}
                answers.append(client.post("/v1/jobs", json=asked, headers={"idempotency-key": key}))

        threads = [threading.Thread(target=ask, args=(f"race-{number}", ready, answers)) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answer.status_code for answer in answers) == [200] * 49 + [202]
        (position,) = {answer.headers["location"] for answer in answers}
        other = {"model": "tagging", "input": "rows.jsonl"}
        mismatch = house.client.post("/v1/jobs", json=other, headers={"idempotency-key": f"race-{number}"})
        assert (mismatch.status_code, mismatch.json()["code"]) == (422, "idempotency_mismatch")
        house.client.delete(position)
