"""What tests of jobs do again and again: inputs to score, a job's way, the processes that score."""

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

ROWS, WORDS = 12_000, ("I", "saw", "a", "saw", "in", "the", "old", "house", "that", "fell")
UNFINISHED = ("queued", "running", "paused", "paused_no_space")


def write_inputs(folder: Path) -> Path:
    """Sentences, one row in a thousand of them bad; and two rows of which one is."""
    with (folder / "rows.jsonl").open("w") as file:
        for number in range(ROWS):
            tokens = [WORDS[(number * 7 + position * position) % len(WORDS)] for position in range(3 + number % 60)]
            file.write(json.dumps({"tokens": 5 if number % 1000 == 7 else tokens}) + "\n")
    (folder / "few.jsonl").write_text('{"text": "I saw a saw"}\n{"text": 5}\n')
    return folder


def submit(server: Any, name: str = "rows.jsonl", **more: Any) -> str:
    """Return the address of a new job."""
    answer = server.client.post("/v1/jobs", json={"model": "tagging", "input": name, **more})
    assert answer.status_code == 202, answer.text
    return str(answer.headers["location"])


def wait(server: Any, position: str, *states: str, seconds: float = 120) -> Any:
    """Return the job, once it is in one of these states."""
    until = time.monotonic() + seconds
    while (job := server.page(position))["state"] not in states:
        assert time.monotonic() < until, job
        assert job["state"] in UNFINISHED, job
        time.sleep(0.05)
    return job


def wait_begun(server: Any, position: str) -> Any:
    """The job, once some of its rows are scored."""
    while not (job := wait(server, position, "running", "done"))["rows"]:
        time.sleep(0.02)
    assert job["state"] == "running", "it was over before anything could happen to it"
    return job


def scorers(home: Path) -> list[psutil.Process]:
    """Return the processes that score for this home, but their helpers."""
    found = []
    for one in psutil.process_iter():
        try:
            if "service.scoring" in one.cmdline() and one.environ().get("BENTOML_HOME") == str(home):
                found.append(one)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def first_scorer(home: Path, but: int = 0) -> psutil.Process:
    """Return the one that a worker has started, once there is another than this one."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        for one in scorers(home):
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                if one.pid != but and one.pid == os.getpgid(one.pid):
                    return one
        time.sleep(0.02)
    pytest.fail("no job is running")


def none_left(home: Path) -> bool:
    until = time.monotonic() + 15
    while scorers(home) and time.monotonic() < until:
        time.sleep(0.05)
    return not scorers(home)
