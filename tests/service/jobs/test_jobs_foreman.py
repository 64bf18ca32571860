"""Who runs jobs: in their turn, one at a time, through pauses, deaths and full disks, and none twice at once."""

import asyncio
import hashlib
import os
import signal
import sys
from collections.abc import Callable
from time import time

import pytest

from service.jobs import job_process as run_module
from service.jobs.job_request import RequestOptions
from service.jobs.representation import page
from service.jobs.store import JobState
from tests.service.jobs.yard import Yard, run

pytestmark = pytest.mark.timeout(60)


def test_done(make_yard: Callable[..., Yard]) -> None:
    """A job's rows, errors, size and digest are known, and only its result stays."""
    yard = make_yard(jobs_workers=3)

    async def work() -> None:
        options = RequestOptions(columns={"text": "--a b"}, id_column="-x", max_errors=0, keep=("k",))
        identity = yard.submit("a", "error", f"wait {yard.gate}", options=options)
        async with yard.led():
            job = await yard.until_rows(identity, 2)
            assert (job.state, job.rows_total, job.errors, job.seconds_left) == (JobState.RUNNING, 3, 1, 1.0)
            assert yard.runs(identity) == [
                "run double:1 --max-rows=100000000 --max-bytes=68719476736 --progress json --workers 3 "
                "--column=text=--a b --keep=k --id-column=-x --max-errors=0"
            ]
            yard.gate.touch()
            job = await yard.until(identity, JobState.DONE)
        content = b"0 a\n1 error\n2 wait\n"
        assert (job.rows, job.rows_total, job.errors, job.output_bytes) == (3, 3, 1, len(content))
        assert job.output_sha256 == hashlib.sha256(content).hexdigest()
        assert (job.notes, page(job).notes) == (("one", "two"), ("one", "two"))
        assert yard.paths.output(job).read_bytes() == content
        assert os.listdir(yard.paths.folder(identity)) == ["output.csv"]

    run(work)


def test_in_turn(make_yard: Callable[..., Yard]) -> None:
    """One job runs at a time, the oldest first, and what was begun before what was not."""
    yard = make_yard()

    async def work() -> None:
        first, second, third = yard.submit("a", f"wait {yard.gate}"), yard.submit("a"), yard.submit("a")
        yard.store.change(second, {"state": JobState.PAUSED})
        async with yard.led():
            await yard.until(second, JobState.DONE)
            await yard.until_rows(first, 1)
            assert yard.job(third).state is JobState.QUEUED
            yard.gate.touch()
            await yard.until(third, JobState.DONE)
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
            assert yard.job(jobs[2]).state is JobState.QUEUED
            yard.gate.touch()
            await yard.until(jobs[2], JobState.DONE)

    run(work)


def test_pauses_with_its_foreman(make_yard: Callable[..., Yard]) -> None:
    """When the service ends its job pauses, and goes on where it was when there is one again."""
    yard = make_yard()

    async def work() -> None:
        identity = yard.submit("a", "b", f"wait {yard.gate}", "c")
        async with yard.led():
            await yard.until_rows(identity, 2)
        assert yard.job(identity).state is JobState.PAUSED
        yard.gate.touch()
        async with yard.led():
            job = await yard.until(identity, JobState.DONE)
        assert yard.paths.output(job).read_text() == "0 a\n1 b\n2 wait\n3 c\n"

    run(work)


def test_a_deaf_child_is_killed(make_yard: Callable[..., Yard], monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that does not pause when it is asked to is not waited for."""
    monkeypatch.setattr(run_module, "PAUSE_SECONDS", 0.2)
    yard = make_yard()
    deaf = "import signal, sys, time; signal.signal(15, signal.SIG_IGN); sys.stderr.write('Error\\n'); time.sleep(99)"

    async def work() -> None:
        identity = yard.submit("a")
        async with yard.led(yard.scheduler(sys.executable, "-c", deaf)) as foreman:
            await yard.until(identity, JobState.RUNNING)
            while identity not in foreman.runs or not foreman.runs[identity]._words:
                await asyncio.sleep(0.01)
        assert yard.job(identity).state is JobState.PAUSED

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
            runs = (yard.paths.folder(jobs[0]) / "runs").read_text()
            yard.gate.touch()
            await yard.until(jobs[1], JobState.DONE)
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
            assert os.getpgid(process.pid) == process.pid
            yard.gate.touch()
            await yard.until(identity, JobState.DONE)
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
            yard.store.cancel(waiting, None, time())
            cancelled = yard.store.cancel(identity, None, time())
            assert cancelled is not None
            assert cancelled.state is JobState.CANCELLED
            await yard.until(other, JobState.DONE)
            assert process.returncode == -signal.SIGKILL
            assert not yard.paths.folder(identity).exists()
            foreman._swept_at = -1000.0
            while yard.paths.folder(waiting).exists():
                await asyncio.sleep(0.01)
        assert yard.job(identity).state is yard.job(waiting).state is JobState.CANCELLED

    run(work)


@pytest.mark.parametrize(
    ("line", "state", "code", "reason"),
    [
        ("exit 1 SOURCE has no column text", JobState.FAILED, "job_failed", "INPUT has no column text"),
        ("exit 8 more than 9 rows (--max-rows)", JobState.FAILED, "job_failed", "more than 9 rows (LECTERN_JOBS_ROWS)"),
        ("exit 1 TARGET cannot be written", JobState.FAILED, "job_failed", "the result cannot be written"),
        ("exit 1", JobState.FAILED, "job_failed", "the job could not be run"),
        ("exit 2 usage", JobState.FAILED, "job_failed", "usage"),
        ("exit 3 more than 0 error rows", JobState.FAILED, "too_many_errors", "more than 0 error rows"),
        ("exit 4 the input changed", JobState.FAILED, "input_changed", "the input changed"),
        ("die", JobState.FAILED, "job_died", "the job's process was ended by signal 9, 3 times at the same place"),
    ],
)
def test_failed(line: str, state: JobState, code: str, reason: str, make_yard: Callable[..., Yard]) -> None:
    """How a child fails is told in its words, with its files called what the caller calls them; the next job runs."""
    yard = make_yard()

    async def work() -> None:
        identity, other = yard.submit("a", line), yard.submit("b")
        async with yard.led():
            job = await yard.until(identity, JobState.FAILED)
            await yard.until(other, JobState.DONE)
        assert (job.state, job.code, job.reason) == (state, code, reason.replace("INPUT", identity))
        assert job.ended is not None
        assert not yard.paths.folder(identity).exists()

    run(work)


@pytest.mark.parametrize(
    ("line", "states"),
    [
        ("once 6 no space left", (JobState.PAUSED_NO_SPACE,)),
        ("once 5 held", (JobState.PAUSED,)),
        ("once 130 stopped", (JobState.PAUSED,)),
        ("once 1 stack_changed", (JobState.PAUSED,)),
    ],
)
def test_goes_on_later(line: str, states: tuple[JobState, ...], make_yard: Callable[..., Yard]) -> None:
    """What may pass is waited for, and the job goes on where it was."""
    yard = make_yard()

    async def work() -> None:
        identity = yard.submit("a", line, "b")
        (parts := yard.paths.folder(identity) / "parts").mkdir()
        async with yard.led():
            rested = await yard.until(identity, *states)
            are_kept = parts.exists()
            job = await yard.until(identity, JobState.DONE)
        assert rested.code == {6: "no_space", 5: "job_held", 1: "stack_changed"}.get(int(line.split()[1]))
        assert are_kept == (rested.code != "stack_changed")
        assert (job.code, job.reason) == (None, None)
        assert yard.paths.output(job).read_text() == "0 a\n1 once\n2 b\n"

    run(work)


def test_the_input_is_gone(make_yard: Callable[..., Yard]) -> None:
    """An input that was there when the job was asked for, and is not any more, fails it in a sentence."""
    yard = make_yard()

    async def work() -> None:
        identity, linked = yard.submit("a"), yard.submit("a")
        (yard.paths.root / identity).unlink()
        (yard.paths.root / linked).unlink()
        (yard.paths.root / linked).symlink_to("/etc/passwd")
        async with yard.led():
            for job in (await yard.until(identity, JobState.FAILED), await yard.until(linked, JobState.FAILED)):
                assert job.reason == "no such file or folder below the storage root"

    run(work)
