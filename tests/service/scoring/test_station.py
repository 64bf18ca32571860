"""Stations, one after another in this process: what Ray puts on other machines, without Ray."""

import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from models.paths import REPOSITORY
from service.scoring.execution.disk import Disk
from service.scoring.execution.interfaces import PartSpec
from service.scoring.execution.workspace import Workspace, read_name
from service.scoring.workers import pool as pools
from service.scoring.workers.pool import Pool
from service.scoring.workers.ray_pool import INSTALL
from service.scoring.workers.remote_worker import READ_TOLD, PartReport, RemoteTask, RemoteWorker
from service.scoring.workers.worker import Stopped
from tests.service.scoring.runner import main
from tests.service.scoring.stand_in import Doubling, write_rows

ROWS = 100


def ask(station: RemoteWorker, cut: PartSpec, folder: Path) -> PartReport | Stopped:
    """Return what a station says of a part, as it travels."""
    (folder / "parts").mkdir(exist_ok=True)
    aside = Workspace(folder, Disk()).aside(cut.index, "run")
    return READ_TOLD.decode(station.score(msgspec.msgpack.encode(RemoteTask(cut=cut, aside=str(aside), known={}))))


def test_two_stations_write_the_same_part(tmp_path: Path) -> None:
    """Each writes a file of its own and both come to one name: one given up for lost does no harm when it is not."""
    write_rows(tmp_path / "in", ROWS)
    asked = Doubling(tmp_path / "in")
    cut, _ = asked.source().cuts()
    with RemoteWorker(asked, 1.0, "s0") as first, RemoteWorker(asked, 1.0, "s1") as second:
        told = [ask(station, cut, tmp_path) for station in (first, second)]
    assert isinstance(told[0], PartReport)
    assert isinstance(told[1], PartReport)
    assert first._aside != second._aside
    assert told[0].done.name == told[1].done.name
    assert [path.name for path in (tmp_path / "parts").iterdir()] == [told[0].done.name]
    named = read_name(told[0].done.name)
    assert named is not None
    assert named.stamp == "run"


def test_a_row_that_ends_its_process(tmp_path: Path) -> None:
    """The station outlives it, and names it."""
    write_rows(tmp_path / "in", ROWS, {3: "die", 60: "raise"})
    asked = Doubling(tmp_path / "in")
    with RemoteWorker(asked, 1.0, "s0") as station:
        for cut, row in zip(asked.source().cuts(), (3, 10), strict=True):
            told = ask(station, cut, tmp_path)
            assert isinstance(told, PartReport)
            assert [(blame.part, blame.row, blame.code) for blame in told.blames] == [(cut.index, row, "runner_failed")]
            assert told.done.errors == 1


def test_a_job_that_cannot_go_on(tmp_path: Path) -> None:
    """An input that changed keeps its kind on its way to the runner."""
    write_rows(tmp_path / "in", ROWS)
    asked = Doubling(tmp_path / "in")
    cut, _ = asked.source().cuts()
    (tmp_path / "in").write_bytes(b"9" + (tmp_path / "in").read_bytes()[1:])
    with RemoteWorker(asked, 1.0, "s0") as station:
        told = ask(station, cut, tmp_path)
    assert told == Stopped(kind="input_changed", reason="the input changed")


def test_idle_time_is_no_absence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an idle hour a row has as long as before, not an hour more: the pool has just looked when a part comes."""
    write_rows(tmp_path / "in", ROWS)
    asked, seen = Doubling(tmp_path / "in"), list[float]()
    submit = Pool.submit

    def spy(pool: Pool, *more: Any) -> None:
        seen.append(time.monotonic() - pool._looked)
        submit(pool, *more)

    monkeypatch.setattr(Pool, "submit", spy)
    with RemoteWorker(asked, 1.0, "s0") as station:
        for cut in asked.source().cuts():
            time.sleep(0.6)
            assert isinstance(ask(station, cut, tmp_path), PartReport)
    assert max(seen) < 0.5 < pools.ABSENCE_SECONDS


class Straggling(Disk):
    """A disk on which a station that was given up for lost begins a part just before the folder is removed."""

    late = 2

    def remove_folder(self, folder: Path) -> None:
        if folder.name == "parts" and self.late:
            self.late -= 1
            (folder / f"00001{self.late}.run.s9.aside").touch()
        super().remove_folder(folder)


def test_a_station_that_writes_when_the_job_is_done(tmp_path: Path) -> None:
    """The folder goes nevertheless; what comes after it finds no folder."""
    workspace = Workspace(tmp_path / "work", Straggling())
    workspace.prepare()
    workspace.clear()
    assert not (tmp_path / "work").exists()


def test_without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence says how to install it, before anything is begun; nobody who does not want it has it."""
    monkeypatch.setitem(sys.modules, "ray", None)
    write_rows(tmp_path / "in", ROWS)
    said = CliRunner().invoke(main, [str(tmp_path), "--engine", "ray"])
    assert (said.exit_code, said.output) == (
        1, f"lectern: --engine ray needs Ray, which is not installed here: {INSTALL}\n"
    )  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    groups = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["dependency-groups"]
    assert [name for name, members in groups.items() if "ray" in str(members)] == ["ray"]
