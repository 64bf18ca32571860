"""A job that ends before any of its operations, or half-way through a write, and is run again: the same bytes."""

import errno
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from chaos.batch.faulty_disk import Crash, CrashingDisk, RecordingDisk
from chaos.batch.power_loss import losses, write_state
from models.errors import LecternError, NoSpace
from service.scoring.execution.disk import Disk
from service.scoring.execution.job import Job
from service.scoring.execution.output import LocalOutput, read_manifest
from service.scoring.execution.workspace import Workspace, default_folder
from tests.service.scoring.stand_in import Doubling, Here, write_rows

ROWS, PART_ROWS = 2000, 50
Attempt = Callable[[Path, Disk], None]


def run(folder: Path, disk: Disk) -> None:
    """One runner, in this process, until it is done or its disk breaks."""
    asked, output = Doubling(folder / "in", PART_ROWS), folder / "out"
    job = Job(
        assignment=asked,
        output=LocalOutput(output, disk),
        workspace=Workspace(default_folder(output), disk),
        disk=disk,
    )
    job.run(lambda aside: Here(asked, disk, aside))


@pytest.fixture
def folders() -> Iterator[Callable[[], Path]]:
    """New folders, in memory where there is such a place: SQLite's own syncs are most of a trial's time."""
    with TemporaryDirectory(prefix="lectern-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as root:
        numbers = iter(range(10**9))

        def make() -> Path:
            folder = Path(root) / str(next(numbers))
            folder.mkdir()
            return folder

        yield make


def points(attempt: Attempt, folder: Path) -> list[str]:
    """Return what an undisturbed run does to its disk, operation by operation."""
    disk = CrashingDisk()
    attempt(folder, disk)
    return disk.done


def crash_everywhere(attempt: Attempt, folders: Callable[[], Path], rows: int, step: int = 1) -> tuple[int, list[str]]:
    """Crash at every point, run again, compare.

    Returns:
        How many trials there were, and what went wrong in which.
    """
    first = folders()
    want = write_rows(first / "in", rows)
    operations, wrong = points(attempt, first), []
    trials = [(at, False) for at in range(0, len(operations), step)]
    trials += [(at, True) for at, name in enumerate(operations) if name == "write"]
    for at, is_half in trials:
        folder, position = folders(), f"{operations[at]} {at}{' (half)' if is_half else ''}"
        write_rows(folder / "in", rows)
        with pytest.raises(Crash):
            attempt(folder, CrashingDisk(at, is_half=is_half))
        if (folder / "out").exists() and (folder / "out").read_bytes() != want:
            wrong.append(f"{position}: something partial is visible")
        attempt(folder, Disk())
        if (folder / "out").read_bytes() != want:
            wrong.append(f"{position}: other bytes")
        left = sorted(path.name for path in folder.iterdir())
        if attempt is run and left != ["in", "out", "out.manifest.json"]:
            wrong.append(f"{position}: left {left}")
    return len(trials), wrong


def test_every_crash_point(folders: Callable[[], Path]) -> None:
    """2,000 rows in parts of 50: before each operation and half-way through each write."""
    trials, wrong = crash_everywhere(run, folders, ROWS)
    assert not wrong
    assert trials > 250


def test_points_are_all_kinds(folders: Callable[[], Path]) -> None:
    """The crash points are those of the promise: each part is created, written, synced, renamed, its folder synced."""
    folder = folders()
    write_rows(folder / "in", ROWS)
    found = Counter(points(run, folder))
    parts = ROWS // PART_ROWS
    assert found["rename"] == parts + 2  # and the output, and the manifest
    assert found["sync"] == found["create"] == parts + 2
    assert min(found["write"], found["sync_folder"]) >= parts + 2


def test_crash_while_resuming(folders: Callable[[], Path]) -> None:
    """A runner that crashes, a second that crashes at another point, a third that ends: the same bytes."""
    first = folders()
    want = write_rows(first / "in", 400)
    count = len(points(run, first))
    for at in range(0, count, 3):
        folder = folders()
        write_rows(folder / "in", 400)
        for again in (at, (at * 7) % count):
            try:
                run(folder, CrashingDisk(again))
            except Crash:
                continue
        run(folder, Disk())
        assert (folder / "out").read_bytes() == want


def test_full_disk_at_every_operation(folders: Callable[[], Path]) -> None:
    """No space at any operation: paused, nothing partial visible, and the same bytes when there is space again."""
    first = folders()
    want = write_rows(first / "in", 400)
    operations = points(run, first)
    for at, name in enumerate(operations):
        if name in ("remove", "remove_folder"):
            continue  # these make space
        folder = folders()
        write_rows(folder / "in", 400)
        with pytest.raises(NoSpace):
            run(folder, CrashingDisk(at, error=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
        assert not (folder / "out").exists() or (folder / "out").read_bytes() == want
        run(folder, Disk())
        assert (folder / "out").read_bytes() == want


def resume_after_losses(
    folders: Callable[[], Path], disk: type[RecordingDisk], rows: int = 400
) -> tuple[int, list[str]]:
    """Lose the power at every point, in every way, run again, compare."""
    first, wrong, trials = folders(), [], 0
    want = write_rows(first / "in", rows)
    recording = disk(default_folder(first / "out") / "ledger.sqlite")
    run(first, recording)
    for number, state in losses(recording.events, first):
        folder, trials = folders(), trials + 1
        write_rows(folder / "in", rows)
        write_state(state, first, folder)
        position = f"before operation {number}, kept {state.kept}, ledger {state.ledger}"
        is_over = number == len(recording.events)
        out = (folder / "out").read_bytes() if (folder / "out").exists() else None
        if out != want and (is_over or out is not None):
            wrong.append(f"{position}: the output is {'partial' if out is not None else 'lost'}")
            continue
        try:
            run(folder, Disk())
        except LecternError as error:
            wrong.append(f"{position}: {error}")
            continue
        if (folder / "out").read_bytes() != want or read_manifest(folder / "out.manifest.json") is None:
            wrong.append(f"{position}: other bytes")
    return trials, wrong


def test_power_loss(folders: Callable[[], Path]) -> None:
    """Un-synced bytes and names dropped, each way, with the ledger's last commits lost too: the same bytes."""
    trials, wrong = resume_after_losses(folders, RecordingDisk)
    assert not wrong
    assert trials > 100


class NoSync(RecordingDisk):
    def sync(self, opened: int) -> None:
        return


class NoFolderSync(RecordingDisk):
    def sync_folder(self, folder: Path) -> None:
        return


@pytest.mark.parametrize("disk", [NoSync, NoFolderSync])
def test_missing_sync_is_caught(disk: type[RecordingDisk], folders: Callable[[], Path]) -> None:
    """Control: without the sync of files, or of folders, the replay loses the output."""
    assert resume_after_losses(folders, disk, rows=150)[1]


def naive(folder: Path, disk: Disk, *, is_saved_first: bool) -> None:
    """A scorer as one would write it: append to the output, keep a checkpoint beside it."""
    asked = Doubling(folder / "in", PART_ROWS)
    source, out, checkpoint = asked.source(), folder / "out", folder / "checkpoint"
    done = json.loads(checkpoint.read_text())["done"] if checkpoint.exists() else 0

    def save(count: int) -> None:
        opened = disk.create(folder / "checkpoint.aside")
        disk.write(opened, json.dumps({"done": count}).encode())
        disk.close(opened)
        disk.rename(folder / "checkpoint.aside", checkpoint)

    with out.open("ab", buffering=0) as file:
        for cut in list(source.cuts())[done:]:
            if is_saved_first:
                save(cut.index + 1)
            disk.write(file.fileno(), "".join(source.score(cut).lines).encode())
            if not is_saved_first:
                save(cut.index + 1)


@pytest.mark.parametrize("is_saved_first", [True, False], ids=["lost-write", "duplicate-write"])
def test_planted_bugs_are_caught(is_saved_first: bool, folders: Callable[[], Path]) -> None:
    """Control: append, then checkpoint duplicates a part; checkpoint, then append loses one. Both are seen."""

    def attempt(folder: Path, disk: Disk) -> None:
        naive(folder, disk, is_saved_first=is_saved_first)

    folder = folders()
    write_rows(folder / "in", ROWS)
    attempt(folder, Disk())
    digest = hashlib.sha256((folder / "out").read_bytes()).hexdigest()
    attempt(folder, Disk())
    assert hashlib.sha256((folder / "out").read_bytes()).hexdigest() == digest  # undisturbed it is right
    trials, wrong = crash_everywhere(attempt, folders, ROWS, step=3)
    assert sum("other bytes" in line for line in wrong) > trials / 10
