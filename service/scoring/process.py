"""A worker process, seen from the runner that started it."""

import os
from collections import deque
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec

from service.scoring.assignment import Assignment, Cut, RowError
from service.scoring.worker import work


class Trial(msgspec.Struct, kw_only=True):
    """A part on its way, and what was tried with it.

    Attributes:
        fruitless: Tries in a row that ended without telling anything.
        suspect: The row at which the last one ended.
    """

    cut: Cut
    known: dict[int, RowError]
    alone: bool = False
    suspect: int | None = None
    fruitless: int = 0


class Worker:
    """One process, seen from here."""

    def __init__(self, assignment: Assignment, context: Any) -> None:
        self.pipe, end = context.Pipe()
        self.process = context.Process(target=work, args=(end, assignment, os.getpid()), daemon=True)
        self.process.start()
        end.close()
        self.is_ready = False
        self.heard()
        self.row: int | None = None
        self.orders: deque[Trial] = deque()

    def heard(self) -> None:
        """It has said something, or has something new to do."""
        self.since, self._starved = monotonic(), self._starved_seconds()

    def silence(self) -> float:
        """Seconds since then, but for those in which it wanted to compute and the machine was too busy to let it."""
        return monotonic() - self.since - (self._starved_seconds() - self._starved)

    def _starved_seconds(self) -> float:
        try:
            return int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[1]) * 1e-9
        except (OSError, IndexError, ValueError):  # no such file: another kernel, or it has ended
            return 0.0

    def end(self) -> None:
        """It is gone when this returns, even if it was stopped."""
        self.process.kill()
        self.process.join()
        self.pipe.close()
