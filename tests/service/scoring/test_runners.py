"""Runners as processes: killed, stopped, interrupted, two at once, out of space."""

import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from models.paths import REPOSITORY
from tests.service.scoring.stand_in import write_rows

pytestmark = pytest.mark.e2e

ROWS, PARTS = 1000, 20
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts runners; whatever is left of them is ended."""
    started = []

    def begin(*options: Any, **more: Any) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "tests.service.scoring.runner", tmp_path, "--workers", 2, *options]
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            **more,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.send_signal(signal.SIGCONT)
        process.communicate()


def begun(folder: Path) -> list[str]:
    """Numbers of the parts that workers began with."""
    return (folder / "log").read_text().split() if (folder / "log").exists() else []


def wait_for(parts: int, folder: Path, seconds: float = 30) -> None:
    """Until that many parts were begun."""
    until = time.monotonic() + seconds
    while len(begun(folder)) < parts:
        assert time.monotonic() < until, "no part was begun"
        time.sleep(0.01)


def stop_between_commits(process: "subprocess.Popen[str]", ledger: Path) -> None:
    """Stop a runner while it is not writing to its ledger: SQLite's own lock would keep others away too."""
    while True:
        process.send_signal(signal.SIGSTOP)
        while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.001)
        with closing(sqlite3.connect(ledger, timeout=0, isolation_level=None)) as rows, suppress(sqlite3.Error):
            rows.execute("BEGIN IMMEDIATE")
            rows.execute("ROLLBACK")
            return
        process.send_signal(signal.SIGCONT)
        time.sleep(0.02)


def end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Exit status and everything said."""
    said, _ = process.communicate(timeout=60)
    return process.returncode, said


def test_killed_and_run_again(start: Start, tmp_path: Path) -> None:
    """SIGKILL: the workers end with the runner, the lock is free, at most one part per worker is scored again."""
    want, first = write_rows(tmp_path / "in", ROWS), start("--seconds", 0.1)
    wait_for(6, tmp_path)
    workers = psutil.Process(first.pid).children()
    first.kill()
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert workers
    assert not alive
    assert not (tmp_path / "out").exists()
    assert end(start("--seconds", 0.0))[0] == 0
    assert (tmp_path / "out").read_bytes() == want
    assert len(begun(tmp_path)) <= PARTS + 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(number: signal.Signals, start: Start, tmp_path: Path) -> None:
    """Ctrl-C or SIGTERM, even to the whole group: paused within a part's time; it says how to go on, and that works."""
    want, first = write_rows(tmp_path / "in", ROWS), start("--seconds", 0.2)
    wait_for(4, tmp_path)
    asked = time.monotonic()
    os.killpg(first.pid, number)
    code, said = end(first)
    assert time.monotonic() - asked < 3
    assert (code, said.count("\n")) == (130, 1)
    assert f" -m service.scoring resume {tmp_path / 'out'}" in said
    noted = len(list((tmp_path / ".out.job" / "parts").glob("*.*.*.*")))
    assert noted >= 2  # what was begun was brought to its end
    assert end(start())[0] == 0
    assert (tmp_path / "out").read_bytes() == want
    assert len(begun(tmp_path)) <= PARTS + 2


def test_interrupted_twice(start: Start, tmp_path: Path) -> None:
    """The second Ctrl-C does not wait for anything."""
    write_rows(tmp_path / "in", ROWS)
    first = start("--seconds", 30)
    wait_for(2, tmp_path)
    for _ in range(2):
        first.send_signal(signal.SIGINT)
        time.sleep(0.1)
    asked = time.monotonic()
    assert end(first)[0] == 130
    assert time.monotonic() - asked < 1


def test_two_runners(start: Start, tmp_path: Path) -> None:
    """The second is refused while the first works and while it is stopped; the first ends as if alone."""
    want, first = write_rows(tmp_path / "in", ROWS), start("--seconds", 0.2)
    wait_for(3, tmp_path)
    code, said = end(start())
    assert (code, f"process {first.pid} on" in said) == (5, True)
    first.send_signal(signal.SIGSTOP)
    assert end(start())[0] == 5
    assert not (tmp_path / "out").exists()
    first.send_signal(signal.SIGCONT)
    assert end(first)[0] == 0
    assert (tmp_path / "out").read_bytes() == want
    assert len(begun(tmp_path)) == PARTS


def test_two_at_the_same_moment(start: Start, tmp_path: Path) -> None:
    """Of four that begin at once one does the work; the others are refused, or find it done."""
    want, runners = write_rows(tmp_path / "in", ROWS), [start("--seconds", 0.1) for _ in range(4)]
    codes = sorted(end(runner)[0] for runner in runners)
    assert codes in ([0, 5, 5, 5], [0, 0, 5, 5], [0, 0, 0, 5], [0, 0, 0, 0])
    assert (tmp_path / "out").read_bytes() == want
    assert len(begun(tmp_path)) == PARTS


def test_a_runner_whose_job_was_taken_away(start: Start, tmp_path: Path) -> None:
    """Stopped, its work folder removed, the job done by another: when it goes on it changes nothing, and says so."""
    want, first = write_rows(tmp_path / "in", ROWS), start("--seconds", 0.2)
    wait_for(3, tmp_path)
    os.killpg(first.pid, signal.SIGSTOP)
    shutil.rmtree(tmp_path / ".out.job")
    assert end(start())[0] == 0
    before = [(tmp_path / name).stat().st_mtime_ns for name in ("out", "out.manifest.json")]
    os.killpg(first.pid, signal.SIGCONT)
    code, said = end(first)
    assert code in (1, 5), said
    assert [(tmp_path / name).stat().st_mtime_ns for name in ("out", "out.manifest.json")] == before
    assert (tmp_path / "out").read_bytes() == want


def test_a_runner_whose_job_was_taken_over(start: Start, tmp_path: Path) -> None:
    """Only its lock is removed, and another runner goes on: the first one is fenced off before its next commit."""
    want, first = write_rows(tmp_path / "in", ROWS), start("--seconds", 0.2)
    wait_for(3, tmp_path)
    stop_between_commits(first, tmp_path / ".out.job" / "ledger.sqlite")
    (tmp_path / ".out.job" / "lock").unlink()
    second = start("--seconds", 0.2)
    wait_for(8, tmp_path)
    first.send_signal(signal.SIGCONT)
    code, said = end(first)
    assert (code, "another runner" in said) == (5, True)
    assert end(second)[0] == 0
    assert (tmp_path / "out").read_bytes() == want


@pytest.mark.parametrize("change", [b"1\n", None], ids=["appended", "flipped"])
def test_input_changed_while_it_is_scored(change: bytes | None, start: Start, tmp_path: Path) -> None:
    """Stopped with its own exit status, at the latest before the output would appear; nothing is visible."""
    write_rows(tmp_path / "in", ROWS)
    first = start("--seconds", 0.1, "--progress", "json")
    wait_for(2, tmp_path)
    with (tmp_path / "in").open("r+b") as file:
        file.seek(0, os.SEEK_END if change else os.SEEK_SET)
        file.write(change or b"9")
    code, said = end(first)
    assert (code, json.loads(said.splitlines()[-1])["code"]) == (4, "input_changed")
    assert not (tmp_path / "out").exists()
    code, said = end(start())
    assert (code, "input" in said) == (4, True)


def test_file_too_large(start: Start, tmp_path: Path) -> None:
    """A limit on the size of files is a full disk: paused, exit 6; without it, the same bytes."""
    want = write_rows(tmp_path / "in", 20_000)
    limited = start(
        "--part-rows", 5000, preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (70_000, 70_000))
    )
    code, said = end(limited)
    assert (code, "go on with" in said) == (6, True), said
    assert not (tmp_path / "out").exists()
    assert end(start("--part-rows", 5000))[0] == 0
    assert (tmp_path / "out").read_bytes() == want


def test_lines_for_a_scheduler(start: Start, tmp_path: Path) -> None:
    """Each line is a JSON object; the last one says how it ended, with the output's digest."""
    write_rows(tmp_path / "in", ROWS)
    code, said = end(start("--progress", "json", "--seconds", 0.2))
    events = [json.loads(line) for line in said.splitlines()]
    progress = [event for event in events if event["event"] == "progress"]
    assert code == 0
    assert {key for event in progress for key in event} == {
        "event", "rows", "rows_total", "errors", "rows_counted", "rows_per_second", "seconds_left"
    }  # fmt: skip
    assert progress[-1]["rows_total"] == ROWS
    assert progress[-1]["rows_per_second"] > 0
    assert events[-1]["event"] == "done"
    assert events[-1]["rows"] == ROWS
    assert end(start("--quiet")) == (0, "")
