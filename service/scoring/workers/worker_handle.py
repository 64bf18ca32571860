"""A worker process, seen from the runner that started it."""

import os
from collections import deque
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import msgspec

from service.scoring.execution.interfaces import PartSpec, RowError, Workload
from service.scoring.workers.worker import work


class Attempt(msgspec.Struct, kw_only=True):
    """A part on its way, and what was tried with it.

    Attributes:
        fruitless: Tries in a row that ended without telling anything.
        cause: What ended the last one.
        suspect: The row at which the last one ended.
    """

    cut: PartSpec
    known: dict[int, RowError]
    alone: bool = False
    suspect: int | None = None
    fruitless: int = 0
    cause: str = ""


class _Times(NamedTuple):
    """What the kernel says of a process: seconds it computed, seconds it waited to, and whether it does either now."""

    used: float
    waited: float
    is_waiting: bool


class WorkerHandle:
    """One process, seen from here."""

    def __init__(self, assignment: Workload, context: Any) -> None:
        self.pipe, end = context.Pipe()
        self.process = context.Process(target=work, args=(end, assignment, os.getpid()), daemon=True)
        self.process.start()
        end.close()
        self.is_ready = False
        self.heard()
        self.row: int | None = None
        self.orders: deque[Attempt] = deque()

    def heard(self) -> None:
        """It has said something, or has something new to do."""
        self.since, self._then = monotonic(), self._times()

    def silence(self) -> float:
        """Seconds since then, but for those in which it wanted to compute and the machine was too busy to let it."""
        now = self._times()
        if now.is_waiting:  # how long it has been waiting this time, the kernel says only when it is let
            return now.used - self._then.used
        return monotonic() - self.since - (now.waited - self._then.waited)

    def _times(self) -> "_Times":
        proc_folder = Path(f"/proc/{self.process.pid}")
        try:
            used, waited, _ = (proc_folder / "schedstat").read_text().split()
            state = (proc_folder / "stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, IndexError, ValueError):  # no such file: another kernel, or it has ended
            return _Times(0.0, 0.0, is_waiting=False)
        return _Times(int(used) * 1e-9, int(waited) * 1e-9, is_waiting=state == "R")

    def end(self) -> None:
        """It is gone when this returns, even if it was stopped."""
        self.process.kill()
        self.process.join()
        self.pipe.close()
