"""Merge what dead processes have counted into one file per kind.

A worker that cannot start leaves files each time it is tried: in a day, gigabytes in memory. Nothing may be lost or
counted twice on the way, whoever is killed meanwhile: what is to be done is written down whole before it is begun, and
whoever comes next finishes it.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from prometheus_client.mmap_dict import MmapedDict

from service.settings.environment import metrics_location

_Mapped: Any = MmapedDict
# What of the dead goes on counting. No process has the number 0.
KINDS = ("counter", "histogram")
HEIR = 0
_LOCK, _PLAN = "lectern-remains.lock", "lectern-remains.json"


class DeadProcessMetrics:
    """The files of a service's metrics, and what is left of its dead.

    Args:
        folder: Where all its processes write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def shared(self) -> Iterator[Sequence[Path]]:
        """All files, of which none is put together with another meanwhile."""
        if (self.folder / _PLAN).exists():
            self.finish()
        with self._locked(fcntl.LOCK_SH):
            yield sorted(self.folder.glob("*.db"))

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        lock = os.open(self.folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, how)
            yield
        finally:
            os.close(lock)

    def finish(self) -> None:
        """Do what somebody had begun who was killed."""
        with self._locked(fcntl.LOCK_EX):
            self._carry_out()

    def gather(self) -> None:
        """Put together what the dead have counted, and forget what held while they lived."""
        with self._locked(fcntl.LOCK_EX):
            self._carry_out()
            dead = [path for path in self.folder.glob("*.db") if _is_dead(path)]
            moved = [[self._gathered(kind, dead), f"{kind}_{HEIR}.db"] for kind in KINDS if _of(kind, dead)]
            if dead:
                self._write_plan({"moved": moved, "gone": [path.name for path in dead]})
                self._carry_out()

    def _gathered(self, kind: str, dead: Sequence[Path]) -> str:
        """Write the sum of what there is and of what the dead have; the name of its file."""
        total: dict[str, float] = {}
        for path in (self.folder / f"{kind}_{HEIR}.db", *_of(kind, dead)):
            if path.exists():
                for key, value, _, _ in read_file(path):
                    total[key] = total.get(key, 0.0) + value
        target = self.folder / f"{kind}_{HEIR}.new"
        target.unlink(missing_ok=True)
        file = _Mapped(str(target))
        for key, value in total.items():
            file.write_value(key, value, 0.0)
        file.close()
        return target.name

    def _write_plan(self, plan: dict[str, object]) -> None:
        draft = self.folder / f"{_PLAN}.new"
        draft.write_text(json.dumps(plan))
        draft.replace(self.folder / _PLAN)

    def _carry_out(self) -> None:
        """Every step may have been done before."""
        plan_path = self.folder / _PLAN
        if not plan_path.exists():
            return
        plan = json.loads(plan_path.read_text())
        for draft, target in plan["moved"]:
            if (self.folder / draft).exists():
                (self.folder / draft).replace(self.folder / target)
        for name in plan["gone"]:
            (self.folder / name).unlink(missing_ok=True)
        plan_path.unlink()


def read_file(path: Path) -> Iterable[tuple[str, float, float, int]]:
    """Key, value, time and position of each number in one of the client's files."""
    found: Iterable[tuple[str, float, float, int]] = _Mapped.read_all_values_from_file(str(path))
    return found


def merge_dead_processes() -> None:
    """Put together what this service's dead processes have counted."""
    folder = metrics_location()
    if folder is not None:
        DeadProcessMetrics(folder).gather()


def _of(kind: str, paths: Sequence[Path]) -> list[Path]:
    return [path for path in paths if path.name.startswith(f"{kind}_")]


def _is_dead(path: Path) -> bool:
    """Return whether its process is gone."""
    pid = path.stem.rpartition("_")[2]
    return pid.isdigit() and int(pid) != HEIR and not psutil.pid_exists(int(pid))
