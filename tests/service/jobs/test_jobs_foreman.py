"""Who runs jobs: in their turn, one at a time, through pauses, deaths and full disks, and none twice at once."""

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import time
from typing import Any

import pytest

from models.datasets import REPOSITORY
from service.jobs import run as run_module
from service.jobs.book import Job, State
from service.jobs.order import Options
from service.jobs.place import GIVEN_UP_SECONDS
from tests.service.jobs.yard import Yard, run

pytestmark = pytest.mark.timeout(60)


def test_done(make_yard: Callable[..., Yard]) -> None:
    """A job's rows, errors, size and digest are known, and only its result stays."""
    yard = make_yard(jobs_workers=3)

    async def work() -> None:
        options = Options(columns={"text": "--a b"}, id_column="-x", max_errors=0, keep=("k",))
        identity = yard.submit("a", "error", f"wait {yard.gate}", options=options)
        async with yard.led():
            job = await yard.until_rows(identity, 2)
            assert (job.state, job.rows_total, job.errors, job.seconds_left) == (State.RUNNING, 3, 1, 1.0)
            assert yard.runs(identity) == [
                "run double:1 --progress json --workers 3 --row-timeout 600"
                " --column=text=--a b --keep=k --id-column=-x --max-errors=0"
            ]
            yard.gate.touch()
            job = await yard.until(identity, State.DONE)
        content = b"0 a\n1 error\n2 wait\n"
        assert (job.rows, job.rows_total, job.errors, job.output_bytes) == (3, 3, 1, len(content))
        assert job.output_sha256 == hashlib.sha256(content).hexdigest()
        assert yard.place.output(job).read_bytes() == content
        assert os.listdir(yard.place.folder(identity)) == ["output.csv"]

    run(work)


def test_in_turn(make_yard: Callable[..., Yard]) -> None:
    """One job runs at a time, the oldest first, and what was begun before what was not."""
    yard = make_yard()

    async def work() -> None:
        first, second, third = yard.submit("a", f"wait {yard.gate}"), yard.submit("a"), yard.submit("a")
        yard.book.change(second, {"state": State.PAUSED})
        async with yard.led():
            await yard.until(second, State.DONE)
            await yard.until_rows(first, 1)
            assert yard.job(third).state is State.QUEUED
            yard.gate.touch()
            await yard.until(third, State.DONE)
        ended = [yard.job(identity).ended or 0 for identity in (second, first, third)]
        assert ended == sorted(ended)

    run(work)


def test_several_at_once(make_yard: Callable[..., Yard]) -> None:
    """As many run as may."""
    yard = make_yard(jobs_running=2)

    async def work() -> None:
        jobs = [yard.submit("a", f"wait {yard.gate}") for _ in range(3)]
        async with yard.led():
            for identity in jobs[:2]:
                await yard.until_rows(identity, 1)
            assert yard.job(jobs[2]).state is State.QUEUED
            yard.gate.touch()
            await yard.until(jobs[2], State.DONE)

    run(work)


def test_pauses_with_its_foreman(make_yard: Callable[..., Yard]) -> None:
    """When the service ends its job pauses, and goes on where it was when there is one again."""
    yard = make_yard()

    async def work() -> None:
        identity = yard.submit("a", "b", f"wait {yard.gate}", "c")
        async with yard.led():
            await yard.until_rows(identity, 2)
        assert yard.job(identity).state is State.PAUSED
        yard.gate.touch()
        async with yard.led():
            job = await yard.until(identity, State.DONE)
        assert yard.place.output(job).read_text() == "0 a\n1 b\n2 wait\n3 c\n"

    run(work)


def test_a_deaf_child_is_killed(make_yard: Callable[..., Yard], monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that does not pause when it is asked to is not waited for."""
    monkeypatch.setattr(run_module, "PAUSE_SECONDS", 0.2)
    yard = make_yard()
    deaf = "import signal, sys, time; signal.signal(15, signal.SIG_IGN); sys.stderr.write('!\\n'); time.sleep(99)"

    async def work() -> None:
        identity = yard.submit("a")
        async with yard.led(yard.foreman(sys.executable, "-c", deaf)) as foreman:
            await yard.until(identity, State.RUNNING)
            while identity not in foreman.runs or not foreman.runs[identity]._words:
                await asyncio.sleep(0.01)
        assert yard.job(identity).state is State.PAUSED

    run(work)


def test_two_foremen(make_yard: Callable[..., Yard]) -> None:
    """One of them leads; when it ends the other takes over, and nothing ran twice at once."""
    yard = make_yard()

    async def work() -> None:
        jobs = [yard.submit("a", "b", f"wait {yard.gate}") for _ in range(2)]
        async with yard.led() as second, yard.led() as first:
            await yard.until_rows(jobs[0], 2)
            leaders = [one for one in (first, second) if one.runs]
            assert len(leaders) == 1
            leaders[0].is_over = True
            while not (second if leaders[0] is first else first).runs:
                await asyncio.sleep(0.01)
            runs = (yard.place.folder(jobs[0]) / "runs").read_text()
            yard.gate.touch()
            await yard.until(jobs[1], State.DONE)
            assert "TWICE" not in runs

    run(work)


def test_a_child_has_only_what_it_needs(make_yard: Callable[..., Yard]) -> None:
    """What the service has open, its port above all, its child has not; and the child gives way to everything."""
    yard = make_yard()

    async def work() -> None:
        reading, writing = os.pipe()
        os.set_inheritable(writing, True)
        identity = yard.submit("a", f"wait {yard.gate}")
        async with yard.led() as foreman:
            await yard.until_rows(identity, 1)
            os.close(writing)
            os.set_blocking(reading, False)
            assert os.read(reading, 1) == b""  # the end: nobody has the other side, or this would block
            process = foreman.runs[identity]._process
            assert process is not None
            assert os.sched_getscheduler(process.pid) == os.SCHED_IDLE
            assert os.getpriority(os.PRIO_PROCESS, process.pid) == 19
            assert os.getsid(process.pid) == process.pid
            yard.gate.touch()
            await yard.until(identity, State.DONE)
        os.close(reading)

    run(work)


def test_cancelled(make_yard: Callable[..., Yard]) -> None:
    """A cancelled job's child ends and nothing of it stays; the next one begins."""
    yard = make_yard()

    async def work() -> None:
        identity, other = yard.submit("a", f"wait {yard.gate}"), yard.submit("b")
        waiting = yard.submit("c")
        async with yard.led() as foreman:
            await yard.until_rows(identity, 1)
            process = foreman.runs[identity]._process
            assert process is not None
            yard.book.cancel(waiting, None, time())
            cancelled = yard.book.cancel(identity, None, time())
            assert cancelled is not None
            assert cancelled.state is State.CANCELLED
            await yard.until(other, State.DONE)
            assert process.returncode == -signal.SIGKILL
            assert not yard.place.folder(identity).exists()
            foreman._swept_at = -1000.0
            while yard.place.folder(waiting).exists():
                await asyncio.sleep(0.01)
        assert yard.job(identity).state is yard.job(waiting).state is State.CANCELLED

    run(work)


@pytest.mark.parametrize(
    ("line", "state", "code", "reason"),
    [
        ("exit 1 SOURCE has no column text", State.FAILED, "job_failed", "INPUT has no column text"),
        ("exit 1 TARGET cannot be written", State.FAILED, "job_failed", "the result cannot be written"),
        ("exit 1", State.FAILED, "job_failed", "the job could not be run"),
        ("exit 2 usage", State.FAILED, "job_failed", "usage"),
        ("exit 3 more than 0 error rows", State.FAILED, "too_many_errors", "more than 0 error rows"),
        ("exit 4 the input changed", State.FAILED, "input_changed", "the input changed"),
        ("die", State.FAILED, "job_died", "the job's process was ended by signal 9, 3 times at the same place"),
    ],
)
def test_failed(line: str, state: State, code: str, reason: str, make_yard: Callable[..., Yard]) -> None:
    """How a child fails is told in its words, with its files called what the caller calls them; the next job runs."""
    yard = make_yard()

    async def work() -> None:
        identity, other = yard.submit("a", line), yard.submit("b")
        async with yard.led():
            job = await yard.until(identity, State.FAILED)
            await yard.until(other, State.DONE)
        assert (job.state, job.code, job.reason) == (state, code, reason.replace("INPUT", identity))
        assert job.ended is not None
        assert not yard.place.folder(identity).exists()

    run(work)


@pytest.mark.parametrize(
    ("line", "states"),
    [
        ("once 6 no space left", (State.PAUSED_NO_SPACE,)),
        ("once 5 held", (State.PAUSED,)),
        ("once 130 stopped", (State.PAUSED,)),
    ],
)
def test_goes_on_later(line: str, states: tuple[State, ...], make_yard: Callable[..., Yard]) -> None:
    """What may pass is waited for, and the job goes on where it was."""
    yard = make_yard()

    async def work() -> None:
        identity = yard.submit("a", line, "b")
        async with yard.led():
            rested = await yard.until(identity, *states)
            job = await yard.until(identity, State.DONE)
        assert rested.code == {6: "no_space", 5: "job_held"}.get(int(line.split()[1]))
        assert (job.code, job.reason) == (None, None)
        assert yard.place.output(job).read_text() == "0 a\n1 once\n2 b\n"

    run(work)


def test_the_input_is_gone(make_yard: Callable[..., Yard]) -> None:
    """An input that was there when the job was asked for, and is not any more, fails it in a sentence."""
    yard = make_yard()

    async def work() -> None:
        identity, linked = yard.submit("a"), yard.submit("a")
        (yard.place.root / identity).unlink()
        (yard.place.root / linked).unlink()
        (yard.place.root / linked).symlink_to("/etc/passwd")
        async with yard.led():
            for job in (await yard.until(identity, State.FAILED), await yard.until(linked, State.FAILED)):
                assert job.reason == "no such file or folder below the storage root"

    run(work)


def test_the_book_cannot_be_written(make_yard: Callable[..., Yard], monkeypatch: pytest.MonkeyPatch) -> None:
    """A result that could not be written down is written down later."""
    yard = make_yard()
    change, failures = yard.book.change, [True]

    def fails_once(identity: str, values: Any, **more: Any) -> bool:
        if values.get("state") is State.DONE and failures:
            failures.pop()
            raise OSError("no")
        return change(identity, values, **more)

    monkeypatch.setattr(yard.book, "change", fails_once)

    async def work() -> None:
        identity = yard.submit("a")
        async with yard.led():
            job = await yard.until(identity, State.DONE)
        assert not failures
        assert job.rows == 1

    run(work)


def test_one_bad_job_stops_no_other(make_yard: Callable[..., Yard], monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that cannot be looked after for a reason nobody thought of waits; the others run."""
    yard = make_yard()
    output, bad = yard.place.output, []

    def fails(place: Any, job: Job) -> Path:
        if job.id in bad:
            raise ZeroDivisionError
        return output.__func__(place, job)  # type: ignore[attr-defined, no-any-return]

    monkeypatch.setattr(type(yard.place), "output", fails)

    async def work() -> None:
        bad.append(yard.submit("a"))
        other = yard.submit("b")
        async with yard.led():
            await yard.until(other, State.DONE)
            assert not yard.job(bad[0]).is_finished
            waiting = bad.pop()
            await yard.until(waiting, State.DONE)

    run(work)


def test_cleared_away(make_yard: Callable[..., Yard]) -> None:
    """What nobody needs goes: results that were kept long enough, leavings of who died, uploads given up."""
    yard = make_yard(jobs_keep_seconds=1000)
    old, done, waiting, upload, given_up = (yard.submit("a") for _ in range(5))
    now = time()
    for identity, ended in ((old, now - 1001), (done, now - 999)):
        values = {"state": State.DONE, "ended": ended, "output_bytes": 0}
        yard.book.change(identity, values)
        yard.place.output(yard.job(identity)).touch()
        (yard.place.folder(identity) / "parts").mkdir()
        (yard.place.folder(identity) / "running.lock").touch()
    for identity in (upload, given_up):
        yard.book.cancel(identity, None, now)
        yard.book.cancel(identity, None, now)
    long_ago = now - GIVEN_UP_SECONDS - 60
    os.utime(yard.place.folder(given_up), (long_ago, long_ago))
    yard.foreman()._sweep()
    assert sorted(yard.place.folders()) == sorted([done, waiting, upload])
    assert os.listdir(yard.place.folder(done)) == ["output.csv"]
    assert {job.id for job in yard.book.all(None, 9)} == {done, waiting}


def test_whoever_started_it_is_gone() -> None:
    """A child whose parent died before it could be watched does not begin."""
    lock = os.open(os.devnull, os.O_RDONLY)
    command = [sys.executable, "-m", "service.jobs.child", "1", str(lock), sys.executable, "-c", "print('begun')"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    os.close(lock)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "gone" in ended.stderr
