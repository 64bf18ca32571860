"""Outputs that are not on this machine: uploaded once, data before manifest, anew after any crash."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec
import pytest

from models.errors import JobError
from service.scoring.execution.context import RunPolicy
from service.scoring.execution.destination import is_same
from service.scoring.execution.disk import Disk
from service.scoring.execution.job import Job
from service.scoring.execution.remote_output import RemoteOutput
from service.scoring.execution.workspace import Workspace
from service.scoring.status import verify
from tests.service.scoring.stand_in import Doubling, Here, write_rows

ADDRESS = "memory://bucket/out"
OPERATIONS = ("put_file", "rm_file", "size", "exists", "cat_file", "open")


class Crashed(BaseException):
    """The process ends here."""


@pytest.fixture
def files() -> Iterator[Any]:
    """An empty store."""
    found = fsspec.filesystem("memory")
    found.store.clear()
    found.makedirs("/bucket", exist_ok=True)
    yield found
    found.store.clear()


@pytest.fixture
def run(tmp_path: Path, files: Any) -> Callable[..., Any]:
    """Runs the job, to its end or to a crash."""
    write_rows(tmp_path / "in", 200)

    def go(disk: Disk | None = None, **terms: Any) -> Any:
        disk, work = disk or Disk(), tmp_path / "work"
        asked = Doubling(tmp_path / "in")
        output, workspace = RemoteOutput(ADDRESS, work, disk), Workspace(work, disk)
        job = Job(assignment=asked, output=output, workspace=workspace, disk=disk, terms=RunPolicy(**terms))
        return job.run(lambda aside: Here(asked, disk, aside))

    return go


def expected() -> bytes:
    return b"answers\n" + b"".join(b"%d\n" % (2 * row + 1) for row in range(200)) + b"end\n"


def test_a_job(run: Any, files: Any, tmp_path: Path) -> None:
    """Data and manifest are there, nothing else is anywhere; a second run finds that all is done."""
    manifest, was_undone = run()
    assert (was_undone, files.cat_file(ADDRESS)) == (True, expected())
    assert manifest.sha256 == hashlib.sha256(expected()).hexdigest()
    assert sorted(files.ls("/bucket", detail=False)) == ["/bucket/out", "/bucket/out.manifest.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
    assert run() == (manifest, False)
    position = RemoteOutput(ADDRESS, tmp_path / "work", Disk())
    assert [is_equal for _, is_equal, _ in islice(verify(position), 2)] == [True, True]


def test_something_else_in_its_place(run: Any, files: Any) -> None:
    """Is not replaced without being told, and neither is its manifest taken for this job's."""
    files.pipe_file(ADDRESS, b"mine")
    with pytest.raises(JobError, match="is there already"):
        run()
    assert files.cat_file(ADDRESS) == b"mine"
    run(overwrites=True)
    assert files.cat_file(ADDRESS) == expected()


@pytest.mark.parametrize(
    ("source", "is_refused"),
    [(ADDRESS, True), ("memory:///bucket/out", True), ("memory://bucket/in", False), ("bucket/out", False)],
)
def test_the_input_itself(source: str, is_refused: bool) -> None:
    """Is known by any name of its address, and is nothing of another name, or of this machine."""
    assert is_same(ADDRESS, source) is is_refused


def test_a_damaged_output_is_made_anew(run: Any, files: Any) -> None:
    """If somebody says so."""
    run()
    files.pipe_file(ADDRESS, b"other")
    with pytest.raises(JobError, match="is there already"):
        run()
    assert run(overwrites=True)[1]
    assert files.cat_file(ADDRESS) == expected()


class Stopping(Disk):
    """Ends the process before its n-th operation."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __getattribute__(self, name: str) -> Any:
        if name in ("create", "write", "sync", "rename", "remove", "sync_folder", "remove_folder"):
            self.left -= 1
            if self.left < 0:
                raise Crashed
        return super().__getattribute__(name)


def crashes(run: Any, files: Any, plant: Callable[[int], Any], most: int) -> int:
    """Crash at each point, go on, and look: at how many there was a crash."""
    count = 0
    for number in range(most):
        files.store.clear()
        files.makedirs("/bucket", exist_ok=True)
        crashed = False
        try:
            plant(number)
        except Crashed:
            crashed = True
        if files.exists(f"{ADDRESS}.manifest.json"):
            assert files.cat_file(ADDRESS) == expected(), "a manifest says that the data is there"
        manifest, _ = run()
        assert files.cat_file(ADDRESS) == expected()
        assert files.exists(f"{ADDRESS}.manifest.json")
        assert run() == (manifest, False)
        if not crashed:
            break
        count += 1
    return count


def test_every_operation_of_the_disk(run: Any, files: Any, tmp_path: Path) -> None:
    """A crash anywhere: the next run comes to the same bytes, and finds no stranger in its place."""
    assert 40 < crashes(run, files, lambda number: run(Stopping(number)), 500) < 500
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


@pytest.mark.parametrize("is_done", [False, True])
def test_every_operation_of_the_store(
    is_done: bool, run: Any, files: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The same before and after each call of the store."""

    def plant(number: int) -> Any:
        left = [number]
        with monkeypatch.context() as patch:
            for name in OPERATIONS:
                patch.setattr(type(files), name, _stopping(getattr(type(files), name), left, is_done))
            return run()

    assert 4 < crashes(run, files, plant, 100) < 100
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def _stopping(call: Any, left: list[int], is_done: bool) -> Any:
    def stop(*words: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] == -1 and not is_done:
            raise Crashed
        is_last = left[0] == -1
        try:
            return call(*words, **options)
        finally:
            if is_last:
                raise Crashed

    return stop


def test_a_store_that_says_no(run: Any, files: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What it says ends the run in one sentence, and nothing is lost: the next run only uploads."""

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError("not yours")

    with monkeypatch.context() as patch:
        patch.setattr(type(files), "put_file", refuse)
        with pytest.raises(JobError, match="memory://bucket/out: PermissionError: not yours"):
            run()
    assert (tmp_path / "work" / "ledger.sqlite").exists()
    assert run()[1]
    assert files.cat_file(ADDRESS) == expected()


def test_without_the_mark_a_crash_is_not_forgiven(run: Any, files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a run that does not remember its upload takes its own output for a stranger's."""
    monkeypatch.setattr("service.scoring.execution.remote_output.UPLOAD", "nothing.aside")

    def stop(*_: Any) -> None:
        raise Crashed

    with monkeypatch.context() as patch, suppress(Crashed):
        patch.setattr(type(files), "size", stop)
        run()
    with pytest.raises(JobError, match="not this job's"):
        run()
