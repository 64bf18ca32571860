"""When a job does nothing, goes on, or is refused, and what its ledger and manifest say."""

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from chaos.batch.faulty_disk import Crash, CrashingDisk
from models.errors import DataError, InputChanged, Interrupted, JobError, NoSpace, StackChanged, TooManyErrors
from service.scoring.execution import ledger as ledgers
from service.scoring.execution.context import RunPolicy
from service.scoring.execution.disk import Disk
from service.scoring.execution.interfaces import InputSource
from service.scoring.execution.job import Job
from service.scoring.execution.output import LocalOutput, OutputManifest, read_manifest
from service.scoring.execution.progress import JobProgress, Stop
from service.scoring.execution.workspace import Workspace, default_folder
from tests.service.scoring.stand_in import Doubling, Here, write_rows

ROWS = 400
Run = Callable[..., tuple[OutputManifest, bool]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """One runner in this process."""

    def begin(asked: Doubling | None = None, disk: Disk | None = None, **more: Any) -> tuple[OutputManifest, bool]:
        asked, disk, out = asked or Doubling(tmp_path / "in"), disk or Disk(), tmp_path / "out"
        terms = RunPolicy(**{name: more.pop(name) for name in ("max_errors", "overwrites", "mixes") if name in more})
        workspace = Workspace(default_folder(out), disk)
        job = Job(assignment=asked, output=LocalOutput(out, disk), workspace=workspace, disk=disk, terms=terms, **more)
        return job.run(lambda aside: Here(asked, disk, aside))

    return begin


def crash(run: Run, at: int = 30, **more: Any) -> None:
    """Leave an unfinished job behind."""
    with pytest.raises(Crash):
        run(disk=CrashingDisk(at), **more)


def test_done_is_done(run: Run, tmp_path: Path) -> None:
    """A job that is done with the same input, model and options and a whole output: nothing is touched."""
    want = write_rows(tmp_path / "in", ROWS)
    first, was_undone = run()
    assert was_undone
    before = (tmp_path / "out").stat().st_mtime_ns
    assert run(overwrites=True) == (first, False)
    assert run() == (first, False)
    assert (tmp_path / "out").stat().st_mtime_ns == before
    assert (tmp_path / "out").read_bytes() == want


def test_manifest(run: Run, tmp_path: Path) -> None:
    """It holds the digests of the input, of every part and of the output, and its own; one flipped byte is found."""
    write_rows(tmp_path / "in", ROWS, {5: "bad"})
    manifest, _ = run()
    assert manifest == read_manifest(tmp_path / "out.manifest.json")
    assert manifest.sha256 == hashlib.sha256((tmp_path / "out").read_bytes()).hexdigest()
    assert manifest.input_sha256 == hashlib.sha256((tmp_path / "in").read_bytes()).hexdigest()
    assert (manifest.rows, manifest.errors, manifest.bytes) == (ROWS, 1, (tmp_path / "out").stat().st_size)
    assert [(part["rows"], part["errors"]) for part in manifest.parts] == [(50, 1)] + [(50, 0)] * 7
    content = (tmp_path / "out.manifest.json").read_bytes()
    for position in range(0, len(content), 37):
        (tmp_path / "out.manifest.json").write_bytes(content[:position] + b"~" + content[position + 1 :])
        with pytest.raises(JobError):
            read_manifest(tmp_path / "out.manifest.json")


@pytest.mark.parametrize("damage", ["other output", "damaged output", "changed input", "damaged manifest"])
def test_what_is_there_is_not_replaced(damage: str, run: Run, tmp_path: Path) -> None:
    """A file in the output's place that this job did not make from this input stays, unless it is told to overwrite."""
    want = write_rows(tmp_path / "in", ROWS)
    if damage == "other output":
        (tmp_path / "out").write_text("mine")
    else:
        run()
        position = {"damaged output": "out", "changed input": "in", "damaged manifest": "out.manifest.json"}[damage]
        with (tmp_path / position).open("ab") as file:
            file.write(b"7\n")
    before = (tmp_path / "out").read_bytes()
    with pytest.raises(JobError, match=r"--overwrite replaces it|not a manifest"):
        run()
    assert (tmp_path / "out").read_bytes() == before
    assert not default_folder(tmp_path / "out").exists()
    assert run(overwrites=True)[1]
    assert (tmp_path / "out").read_bytes() == (want if damage != "changed input" else want[:-4] + b"15\nend\n")


def test_overwriting_is_remembered(run: Run, tmp_path: Path) -> None:
    """A job that may overwrite may still do so when it is resumed; until its end the old file stays."""
    want = write_rows(tmp_path / "in", ROWS)
    (tmp_path / "out").write_text("old")
    crash(run, overwrites=True)
    assert (tmp_path / "out").read_text() == "old"
    run()
    assert (tmp_path / "out").read_bytes() == want


def test_another_file_appears_meanwhile(run: Run, tmp_path: Path) -> None:
    """It is not replaced either."""
    write_rows(tmp_path / "in", ROWS)
    with pytest.raises(JobError, match="appeared meanwhile"):
        run(watch=Writing(tmp_path / "out", at=200))
    assert (tmp_path / "out").read_text() == "mine"


class Writing:
    """Writes a file when so many rows are done."""

    def __init__(self, path: Path, at: int) -> None:
        self._path, self._at = path, at

    def tell(self, progress: JobProgress) -> None:
        if progress.rows == self._at and progress.rows_total:
            self._path.write_text("mine")


def test_progress_only_grows(run: Run, tmp_path: Path) -> None:
    """While rows are counted none is done; afterwards neither rows, error rows nor good rows ever become fewer."""
    told: list[JobProgress] = []

    class Listening:
        def tell(self, progress: JobProgress) -> None:
            told.append(progress)

    write_rows(tmp_path / "in", ROWS, {0: "x", ROWS // 2: "x"})
    run(watch=Listening())
    counting = [one for one in told if one.rows_total is None]
    assert [one.rows_counted for one in counting] == [*range(50, ROWS, 50), ROWS]
    assert {(one.rows, one.errors) for one in counting} == {(0, 0)}
    for name in ("rows", "errors"):
        assert [getattr(one, name) for one in told] == sorted(getattr(one, name) for one in told)
    good = [one.rows - one.errors for one in told]
    assert good == sorted(good)
    assert (told[-1].rows, told[-1].errors) == (ROWS, 2)


def test_another_job_s_folder(run: Run, tmp_path: Path) -> None:
    """An unfinished job with other options is neither gone on with nor thrown away."""
    want = write_rows(tmp_path / "in", ROWS)
    crash(run)
    with pytest.raises(JobError, match="another job is unfinished in"):
        run(Doubling(tmp_path / "in", 20))
    run()
    assert (tmp_path / "out").read_bytes() == want


def test_other_versions(run: Run, tmp_path: Path) -> None:
    """A job does not go on with other versions, or on another machine, unless it is told that this is well."""
    write_rows(tmp_path / "in", ROWS)
    crash(run)
    with pytest.raises(StackChanged, match="bytes may differ"):
        run(Doubling(tmp_path / "in", versions="2"))
    assert run(Doubling(tmp_path / "in", versions="2"), mixes=True)[0].stack == {"stand-in": "2"}


def test_changed_input(run: Run, tmp_path: Path) -> None:
    """What is resumed must be the same input; the same bytes at another time, or from another place, are."""
    want = write_rows(tmp_path / "in", ROWS)
    crash(run)
    write_rows(tmp_path / "in", ROWS + 1)
    with pytest.raises(InputChanged):
        run()
    shutil.move(tmp_path / "in", tmp_path / "moved")
    write_rows(tmp_path / "moved", ROWS)
    run(Doubling(tmp_path / "moved"))
    assert (tmp_path / "out").read_bytes() == want


def test_touched_input(run: Run, tmp_path: Path) -> None:
    """A new time without new bytes, while the job runs, is no change."""
    want = write_rows(tmp_path / "in", ROWS)
    run(watch=Touching(tmp_path / "in"))
    assert (tmp_path / "out").read_bytes() == want


class Touching:
    """Touches a file at every look."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def tell(self, progress: JobProgress) -> None:
        self._path.touch()


class Gone(Doubling):
    """An input that is there once, and then no more."""

    def mark(self) -> str:
        if (self.path.parent / ".out.job" / "ledger.sqlite").exists() and self.path.with_name("seen").exists():
            raise DataError(self.path, found="nothing", expected="a file")
        self.path.with_name("seen").touch()
        return super().mark()


def test_input_taken_away(run: Run, tmp_path: Path) -> None:
    """An input that is gone while the job runs is a changed one; put back, the job goes on."""
    want = write_rows(tmp_path / "in", ROWS)
    with pytest.raises(InputChanged, match=r"can no longer be read: .*: found nothing"):
        run(Gone(tmp_path / "in"))
    assert run()[1]
    assert (tmp_path / "out").read_bytes() == want


def test_too_many_errors(run: Run, tmp_path: Path) -> None:
    """More error rows than allowed stop the job; with a larger limit it goes on, and nothing is scored twice."""
    write_rows(tmp_path / "in", ROWS, dict.fromkeys((3, 160, 161, 390), "bad"))
    asked = Doubling(tmp_path / "in", log=tmp_path / "log")
    with pytest.raises(TooManyErrors, match="3 error rows in 200 rows, more than --max-errors 2"):
        run(asked, max_errors=2)
    with pytest.raises(TooManyErrors):
        run(asked, max_errors=2)
    assert not (tmp_path / "out").exists()
    assert run(asked, max_errors=4)[0].errors == 4
    assert (tmp_path / "log").read_text().split() == [str(part) for part in range(8)]


@pytest.mark.parametrize("damage", ["gone", "flipped", "cut"])
def test_damaged_part(damage: str, run: Run, tmp_path: Path) -> None:
    """A part whose bytes are not those that were noted is found, and scored again."""
    want = write_rows(tmp_path / "in", ROWS)
    crash(run)
    (part,) = (default_folder(tmp_path / "out") / "parts").glob("000002.*")
    content = part.read_bytes()
    part.unlink()
    if damage != "gone":
        part.write_bytes(content[:-1] + (b"X" if damage == "flipped" else b""))
    run()
    assert (tmp_path / "out").read_bytes() == want


def test_ledger_that_is_lost_or_damaged(run: Run, tmp_path: Path) -> None:
    """Without its ledger a job begins anew; a ledger that cannot be read is said, not guessed at."""
    want = write_rows(tmp_path / "in", ROWS)
    crash(run)
    ledger = default_folder(tmp_path / "out") / "ledger.sqlite"
    ledger.write_bytes(b"no ledger" * 1000)
    with pytest.raises(JobError, match="without it the job begins anew"):
        run()
    ledger.unlink()
    run()
    assert (tmp_path / "out").read_bytes() == want


def test_full_ledger(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite finds no space: paused as by any other file, and nothing half-noted."""
    want, connect = write_rows(tmp_path / "in", ROWS), sqlite3.connect

    def connect_small(*args: Any, **options: Any) -> sqlite3.Connection:
        rows = connect(*args, **options)
        rows.execute("PRAGMA max_page_count = 8")
        return rows

    crash(run, 0)
    with monkeypatch.context() as small:
        small.setattr(ledgers.sqlite3, "connect", connect_small)
        with pytest.raises(NoSpace):
            run(Doubling(tmp_path / "in", 1))
    assert (tmp_path / "out").exists() is False
    run()
    assert (tmp_path / "out").read_bytes() == want


def test_what_never_began_leaves_nothing(run: Run, tmp_path: Path) -> None:
    """An input that cannot be read, and a job that is stopped while its rows are counted."""

    class Unreadable(Doubling):
        def source(self) -> InputSource:
            raise DataError("in", found="nothing", expected="rows")

    write_rows(tmp_path / "in", ROWS)
    with pytest.raises(DataError):
        run(Unreadable(tmp_path / "in"))
    stop = Stop()
    stop.is_requested = True
    with pytest.raises(Interrupted):
        run(stop=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_work_folder_on_another_file_system(tmp_path: Path) -> None:
    """The output is put together beside its place then: a rename does not go from one file system to another."""
    with TemporaryDirectory(dir="/dev/shm") as memory:
        if os.stat(memory).st_dev == tmp_path.stat().st_dev:
            pytest.fail("this test needs two file systems")
        want, asked, disk = write_rows(tmp_path / "in", ROWS), Doubling(tmp_path / "in"), CrashingDisk(30)
        for broken in (disk, Disk()):
            job = Job(
                assignment=asked,
                output=LocalOutput(tmp_path / "out", broken),
                workspace=Workspace(Path(memory) / "work", broken),
                disk=broken,
            )
            with suppress(Crash):
                job.run(lambda aside, disk=broken: Here(asked, disk, aside))
        assert (tmp_path / "out").read_bytes() == want
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "out.manifest.json"]
