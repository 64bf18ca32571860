"""Worker processes that end, stand still or stumble, and the rows that are to blame for it."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from models.errors import DataError, JobError
from service.scoring.execution.disk import Disk
from service.scoring.execution.interfaces import PartScorer
from service.scoring.execution.job import Job
from service.scoring.execution.output import LocalOutput, OutputManifest
from service.scoring.execution.progress import JobProgress
from service.scoring.execution.workspace import Workspace, default_folder
from service.scoring.workers import pool as pools
from service.scoring.workers.pool import Pool
from tests.service.scoring.stand_in import Answers, Doubling, write_rows

ROWS = 400


def run(
    asked: Doubling, folder: Path, *, workers: int = 2, row_seconds: float = 1.0, watch: object = None
) -> OutputManifest:
    """Return a job with real worker processes."""
    disk, output = Disk(), folder / "out"
    more = {"watch": watch} if watch else {}
    job = Job(
        assignment=asked, output=LocalOutput(output, disk), workspace=Workspace(default_folder(output), disk), **more
    )
    manifest, _ = job.run(lambda aside: Pool(asked, workers=workers, row_seconds=row_seconds, aside=aside))
    return manifest


def errors_of(out: Path) -> dict[int, str]:
    """Error rows by their number."""
    lines = out.read_text().splitlines()[1:-1]
    return {row: line for row, line in enumerate(lines) if not line.isdigit()}


def children() -> list[psutil.Process]:
    """This process's worker processes."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it may end meanwhile
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def test_exactly_the_poisonous_rows_are_error_rows(tmp_path: Path) -> None:
    """A row that ends, hangs or breaks its process costs only itself, three in one part too; the rest is right."""
    planted = {3: "die", 60: "raise", 110: "stand still", 112: "die", 149: "raise", ROWS - 1: "die"}
    want = write_rows(tmp_path / "in", ROWS, planted)
    manifest = run(Doubling(tmp_path / "in"), tmp_path, row_seconds=0.5)
    code = {"die": "runner_failed", "raise": "runner_failed", "stand still": "runner_timed_out"}
    assert errors_of(tmp_path / "out") == {row: f"! {code[line]}" for row, line in planted.items()}
    right = zip((tmp_path / "out").read_bytes().splitlines(), want.splitlines(), strict=True)
    assert all(found == wanted for found, wanted in right if not found.startswith(b"!"))
    assert manifest.errors == len(planted)
    assert not children()


def test_same_bytes_for_any_number_of_workers(tmp_path: Path) -> None:
    """One worker or three, poisonous rows or not: one sha256."""
    digests = set()
    for workers in (1, 3):
        folder = tmp_path / str(workers)
        folder.mkdir()
        write_rows(folder / "in", ROWS, {7: "die", 8: "raise"})
        digests.add(run(Doubling(folder / "in"), folder, workers=workers).sha256)
    assert len(digests) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_no_row_is_blamed_for_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    """A worker that was killed, or stopped, at a row once: the row is run again, and answers."""
    planted = {90: f"signal {int(number)} unless {tmp_path / 'marker'}"}
    write_rows(tmp_path / "in", ROWS, planted)
    run(Doubling(tmp_path / "in"), tmp_path, row_seconds=0.5)
    assert (tmp_path / "marker").exists()
    assert errors_of(tmp_path / "out") == {90: "! signal"}  # what it answers with when it lives


class Killer:
    """Kills a worker at every other look."""

    def __init__(self) -> None:
        self.kills = self.looks = 0

    def tell(self, progress: JobProgress) -> None:
        self.looks += 1
        workers = children()
        if progress.rows_total and workers and self.looks % 8 == 0:
            self.kills += 1
            workers[-1].send_signal((signal.SIGKILL, signal.SIGSTOP)[self.kills % 2])


def test_workers_that_somebody_keeps_killing(tmp_path: Path) -> None:
    """Workers are killed and stopped all the time; every row is answered, none blamed."""
    want, killer = write_rows(tmp_path / "in", ROWS), Killer()
    run(Doubling(tmp_path / "in", 25, seconds=0.05), tmp_path, row_seconds=0.5, watch=killer)
    assert killer.kills > 2
    assert (tmp_path / "out").read_bytes() == want


def test_a_slow_part_is_no_hang(tmp_path: Path) -> None:
    """The time a part may take follows the pace: parts longer than a row's limit are not cut off."""
    want, log = write_rows(tmp_path / "in", 100), tmp_path / "log"
    run(Doubling(tmp_path / "in", 50, seconds=0.7, log=log), tmp_path, row_seconds=0.2)
    assert (tmp_path / "out").read_bytes() == want
    assert sorted(log.read_text().split()) == ["0", "1"]


class Broken(Doubling):
    def scorer(self) -> PartScorer:
        raise DataError("model", found="nothing", expected="a model")


class Stumbling(Doubling):
    def scorer(self) -> PartScorer:
        raise ValueError("a row's own words")


class Unwritable(Doubling):
    def scorer(self) -> PartScorer:
        lines = super().scorer()
        lines.score = lambda *_, **__: Answers(["1\n", None], 0)  # type: ignore[list-item, method-assign]
        return lines


class Gone(Doubling):
    def scorer(self) -> PartScorer:
        lines = super().scorer()
        lines.score = lambda *_, **__: os._exit(7)  # type: ignore[method-assign]
        return lines


class Stillborn(Doubling):
    def scorer(self) -> PartScorer:
        os._exit(3)


def test_a_model_that_does_not_open(tmp_path: Path) -> None:
    """What a worker says of it ends the job; so do workers that end without a word."""
    write_rows(tmp_path / "in", ROWS)
    with pytest.raises(JobError, match="found nothing, expected a model"):
        run(Broken(tmp_path / "in"), tmp_path)
    with pytest.raises(JobError, match=r"a worker cannot begin: ValueError in test_pool.py, line \d+$"):
        run(Stumbling(tmp_path / "in"), tmp_path)
    with pytest.raises(JobError, match="3 workers ended before they were ready"):
        run(Stillborn(tmp_path / "in"), tmp_path)
    assert not children()


def test_no_row_to_blame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part at which workers end before any row ends the job, after some tries, and what ended them is told."""
    monkeypatch.setattr(pools, "MOST_FRUITLESS", 2)
    write_rows(tmp_path / "in", 50)
    with pytest.raises(JobError, match=r"no row is to blame; the last time: ValueError in \w+.py, line \d+$"):
        run(Doubling(tmp_path / "in", log=Path("/nowhere\0")), tmp_path)
    with pytest.raises(JobError, match="no row is to blame; the last time: exit code 7"):
        run(Gone(tmp_path / "in"), tmp_path)


def test_answers_that_cannot_be_written(tmp_path: Path) -> None:
    """An error after every row has its answer ends the job at once: trying it again tells nothing."""
    write_rows(tmp_path / "in", 50)
    reason = r"part 0 cannot be written: AttributeError in stand_in.py, line \d+$"
    with pytest.raises(JobError, match=reason):
        run(Unwritable(tmp_path / "in"), tmp_path)


def test_parts_in_flight_are_bounded(tmp_path: Path) -> None:
    """However many parts there are, two per worker are on their way, so memory does not grow with the input."""
    write_rows(tmp_path / "in", 10)
    asked = Doubling(tmp_path / "in", 1)
    with Pool(asked, workers=2, row_seconds=1, aside=lambda number: str(tmp_path / str(number))) as pool:
        taken = 0
        for cut in asked.source().cuts():
            if pool.room <= 0:
                break
            pool.submit(cut, {})
            taken += 1
        assert taken == 4


def test_absence_is_nobody_s_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process itself stood still for longer than a part may take: no worker is ended for it."""
    want, log = write_rows(tmp_path / "in", 100), tmp_path / "log"
    monkeypatch.setattr(pools, "ABSENCE_SECONDS", 0.2)
    monkeypatch.setattr(pools, "UNMEASURED", 1.0)
    shifted = threading.Event()

    class Sleeper:
        def tell(self, progress: JobProgress) -> None:
            if log.exists() and not shifted.is_set():
                shifted.set()
                for worker in (workers := children()):
                    worker.suspend()
                time.sleep(2)
                threading.Timer(0.4, lambda: [worker.resume() for worker in workers]).start()

    run(Doubling(tmp_path / "in", 50, seconds=0.6, log=log), tmp_path, row_seconds=1.0, watch=Sleeper())
    assert (tmp_path / "out").read_bytes() == want
    assert sorted(log.read_text().split()) == ["0", "1"]


def test_a_starved_worker_does_not_stand_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that wants to compute, and is not let, is no hang: a busy machine makes no error rows."""
    monkeypatch.setattr(pools, "UNMEASURED", 1.0)
    write_rows(tmp_path / "in", 10, {4: f"burn 0.25 {tmp_path / 'took'}"})
    core = min(os.sched_getaffinity(0))
    busy = f"import os\nos.sched_setaffinity(0, {{{core}}})\nprint(flush=True)\nwhile True: pass"
    others = [subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE) for _ in range(5)]
    for other in others:
        assert other.stdout is not None
        other.stdout.readline()  # it has begun
    try:
        run(Doubling(tmp_path / "in"), tmp_path, workers=1, row_seconds=0.75)
    finally:
        for other in others:
            other.kill()
            other.communicate()
    assert float((tmp_path / "took").read_text()) > 0.75  # it was starved indeed
    assert errors_of(tmp_path / "out") == {4: "! burn"}
