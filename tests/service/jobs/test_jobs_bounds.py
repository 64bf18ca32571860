"""Whatever an input says, its job's time and memory are bounded, and other callers' jobs go on."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from models.paths import REPOSITORY
from service.jobs.job_process import JobProcess
from service.jobs.paths import open_job_paths
from service.jobs.store import JobState, JobStore
from service.settings import Settings
from tests.service.jobs.yard import Yard, run

pytestmark = pytest.mark.timeout(60)
MEMORY = 2**28
TAKE = """
import sys
try:
    held = bytearray(int(sys.argv[1]))
except MemoryError:
    sys.exit("no memory")
"""


def test_one_key_leaves_room(make_yard: Callable[..., Yard]) -> None:
    """While one key's jobs run for ever, another's begins at once; a key's second job waits for its first."""
    yard = make_yard(jobs_running=2)
    first, second = (yard.submit(f"wait {yard.gate}", owner="hostile") for _ in range(2))

    async def work() -> None:
        async with yard.led():
            await yard.until(first, JobState.RUNNING)
            await asyncio.sleep(0.2)  # its second one, if it may, begins in the meantime
            other = yard.submit("1", owner="other")
            await yard.until(other, JobState.DONE)
            assert (yard.job(first).state, yard.job(second).state) == (JobState.RUNNING, JobState.QUEUED)
            yard.gate.touch()
            await yard.until(second, JobState.DONE)

    run(work)


def test_without_keys_all_slots_are_everybody_s(make_yard: Callable[..., Yard]) -> None:
    """Without keys there is one owner, whose jobs take all slots."""
    yard = make_yard(jobs_running=2)
    first = yard.submit(f"wait {yard.gate}")
    second = yard.submit("1")

    async def work() -> None:
        async with yard.led():
            await yard.until(second, JobState.DONE)
            assert yard.job(first).state is JobState.RUNNING
            yard.gate.touch()
            await yard.until(first, JobState.DONE)

    run(work)


def test_time(make_yard: Callable[..., Yard]) -> None:
    """A job that runs for too long is ended and says so; the time before a pause counts."""
    yard = make_yard(jobs_running=1, jobs_seconds=1.0)
    ended = yard.submit(f"wait {yard.gate}")
    before = yard.submit("1", f"wait {yard.gate}", seconds=0.9)

    async def work() -> None:
        async with yard.led():
            for identity in (ended, before):
                job = await yard.until(identity, JobState.FAILED)
                assert (job.code, job.reason) == (
                    "took_too_long", "it ran for more than 1 seconds (LECTERN_JOBS_SECONDS)",
                )  # fmt: skip
                assert job.seconds >= 1.0
        assert not yard.paths.folder(ended).exists()

    run(work)


@pytest.mark.parametrize(("taken", "words"), [(MEMORY // 4, ""), (2 * MEMORY, "no memory")])
def test_memory(taken: int, words: str) -> None:
    """A job's process that asks for more memory than it may have is told that there is none; one with less is not."""
    lock = os.open(os.devnull, os.O_RDONLY)
    command = [sys.executable, "-m", "service.jobs.launcher", str(os.getpid()), str(lock), str(MEMORY)]
    # More cores allow for more stacks, not for more of this.
    taken += 2**24 * (os.cpu_count() or 1) if words else 0
    told = [*command, sys.executable, "-c", TAKE, str(taken)]
    ended = subprocess.run(told, capture_output=True, text=True, cwd=REPOSITORY, pass_fds=(lock,))
    os.close(lock)
    assert (ended.returncode, ended.stderr.strip()) == (int(bool(words)), words)


def test_nobody_else_reads_what_jobs_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The book, its log and all folders are the service's user's alone, whoever made them before and however."""
    (tmp_path / "home" / "lectern-jobs").mkdir(parents=True)
    (tmp_path / "home" / "lectern-jobs" / "jobs.sqlite").touch(mode=0o644)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "home"))
    (tmp_path / "root").mkdir()
    before = os.umask(0)
    try:
        paths = open_job_paths(Settings(jobs_root=str(tmp_path / "root")))
        store = JobStore(paths.store)
        assert store.active() == {}
        paths.make_folder("0" * 32)
    finally:
        os.umask(before)
    files = [path for path in paths.state.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"jobs.sqlite", "jobs.sqlite-wal"}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    folders = [paths.state, paths.state / "jobs", paths.folder("0" * 32)]
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}


WORDS = """Traceback (most recent call last):
  File "/app/service/scoring/parts/scorer.py", line 12, in <module>
    raise KeyError("Alice")
KeyError: 'Alice Smith'
pyarrow.lib.ArrowInvalid: Alice
models.errors.DataError: Alice
,Alice Smith,1970-01-01,
UserWarning: Alice
"""


def test_the_log_quotes_no_rows(make_yard: Callable[..., Yard]) -> None:
    """Of what a child writes that is no event, places and kinds of errors are kept, and nothing that may be a row."""
    yard = make_yard()
    (yard.paths.root / "say.py").write_text(f"import sys; sys.stderr.write({WORDS!r}); sys.exit(1)")
    identity = yard.submit("1")
    job_run = JobProcess(
        yard.job(identity), yard.paths, (sys.executable, str(yard.paths.root / "say.py")), yard.settings
    )

    async def work() -> None:
        ending = await job_run.work()
        assert ending.words.splitlines() == [
            '  File "/app/service/scoring/parts/scorer.py", line 12, in <module>',
            "KeyError", "models.errors.DataError", "UserWarning",
        ]  # fmt: skip

    run(work)
