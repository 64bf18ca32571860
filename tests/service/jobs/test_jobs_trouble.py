"""What the foreman does when it cannot write, when a job is beyond it, and with what others left behind."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import time
from typing import Any

import pytest

from models.paths import REPOSITORY
from service.jobs.paths import GIVEN_UP_SECONDS
from service.jobs.store import JobState, StoredJob
from tests.service.jobs.yard import Yard, run

pytestmark = pytest.mark.timeout(60)


def test_the_book_cannot_be_written(make_yard: Callable[..., Yard], monkeypatch: pytest.MonkeyPatch) -> None:
    """A result that could not be written down is written down later."""
    yard = make_yard()
    change, failures = yard.store.change, [True]

    def fails_once(identity: str, values: Any, **more: Any) -> bool:
        if values.get("state") is JobState.DONE and failures:
            failures.pop()
            raise OSError("no")
        return change(identity, values, **more)

    monkeypatch.setattr(yard.store, "change", fails_once)

    async def work() -> None:
        identity = yard.submit("a")
        async with yard.led():
            job = await yard.until(identity, JobState.DONE)
        assert not failures
        assert job.rows == 1

    run(work)


def test_one_bad_job_stops_no_other(make_yard: Callable[..., Yard], monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that cannot be looked after for a reason nobody thought of waits; the others run."""
    yard = make_yard()
    output, bad = yard.paths.output, []

    def fails(position: Any, job: StoredJob) -> Path:
        if job.id in bad:
            raise ZeroDivisionError
        return output.__func__(position, job)  # type: ignore[attr-defined, no-any-return]

    monkeypatch.setattr(type(yard.paths), "output", fails)

    async def work() -> None:
        bad.append(yard.submit("a"))
        other = yard.submit("b")
        async with yard.led():
            await yard.until(other, JobState.DONE)
            assert not yard.job(bad[0]).is_finished
            waiting = bad.pop()
            await yard.until(waiting, JobState.DONE)

    run(work)


def test_cleared_away(make_yard: Callable[..., Yard]) -> None:
    """What nobody needs goes: results that were kept long enough, leavings of who died, uploads given up."""
    yard = make_yard(jobs_keep_seconds=1000)
    old, done, waiting, upload, given_up = (yard.submit("a") for _ in range(5))
    now = time()
    for identity, ended in ((old, now - 1001), (done, now - 999)):
        values = {"state": JobState.DONE, "ended": ended, "output_bytes": 0}
        yard.store.change(identity, values)
        yard.paths.output(yard.job(identity)).touch()
        (yard.paths.folder(identity) / "parts").mkdir()
        (yard.paths.folder(identity) / "running.lock").touch()
    for identity in (upload, given_up):
        yard.store.cancel(identity, None, now)
        yard.store.cancel(identity, None, now)
    long_ago = now - GIVEN_UP_SECONDS - 60
    os.utime(yard.paths.folder(given_up), (long_ago, long_ago))
    yard.scheduler()._sweep()
    assert sorted(yard.paths.folders()) == sorted([done, waiting, upload])
    assert os.listdir(yard.paths.folder(done)) == ["output.csv"]
    assert {job.id for job in yard.store.all(None, 9)} == {done, waiting}


def test_whoever_started_it_is_gone() -> None:
    """A child whose parent died before it could be watched does not begin."""
    lock = os.open(os.devnull, os.O_RDONLY)
    command = [sys.executable, "-m", "service.jobs.launcher", "1", str(lock), "0", sys.executable, "-c", "print()"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    os.close(lock)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "gone" in ended.stderr
