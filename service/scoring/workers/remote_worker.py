"""A worker on another machine: a process of that machine's own scores, and this one watches over it.

It is a ``Pool`` of one worker, so a row that ends its process, or stands still, is found there and becomes the error
row that it is here. What the pool does with signals, pipes and the time a process was starved works on one machine
only; all that travels between machines is a part's place on its way out and its report on its way back.
"""

import multiprocessing
import sys
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import ModuleType

import msgspec

from models.errors import LecternError
from service.scoring.execution.disk import Disk
from service.scoring.execution.interfaces import PartResult, PartSpec, PoisonRow, RowError, Workload
from service.scoring.execution.planning import stack_of
from service.scoring.execution.workspace import apart
from service.scoring.workers.pool import Pool
from service.scoring.workers.worker import Stopped, stopped

LISTEN_SECONDS = 1.0


class RemoteTask(msgspec.Struct, frozen=True, kw_only=True):
    """A part for a station.

    Attributes:
        aside: Where the runner would have it written.
        known: Rows that get an error without being run.
    """

    cut: PartSpec
    aside: str
    known: dict[int, RowError]


class PartReport(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Describe what a station says of a part: the rows to blame, and then the part."""

    blames: list[PoisonRow]
    done: PartResult


class BareProcess(SpawnProcess):
    """A process that does not import the program it was started by, as one that is spawned does otherwise.

    An actor's program is Ray's, whose import takes 2 s, and there is nothing in it that scores.
    """

    def start(self) -> None:
        """Begin it."""
        program = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            super().start()
        finally:
            sys.modules["__main__"] = program


class BareContext:
    """Makes such processes."""

    Pipe = staticmethod(multiprocessing.get_context("spawn").Pipe)
    Process = BareProcess


READ_TASK, READ_TOLD = msgspec.msgpack.Decoder(RemoteTask), msgspec.msgpack.Decoder(PartReport | Stopped)


class RemoteWorker:
    """Scores one part after another, in a process that it starts; that one ends with this one's, or this context.

    Args:
        assignment: What is scored.
        row_seconds: How long one row may take.
        name: No other station's. One whose machine was given up for lost may still be writing, so no two of them write
            the same file.
    """

    def __init__(self, assignment: Workload, row_seconds: float, name: str) -> None:
        self._assignment, self._name, self._disk, self._aside = assignment, name, Disk(), ""
        self._pool = Pool(
            assignment, workers=1, row_seconds=row_seconds, aside=lambda number: self._aside, context=BareContext
        )
        self._pool.expect(1)

    def __enter__(self) -> "RemoteWorker":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.__exit__()

    def stack(self) -> str:
        """Versions and machine, as one text."""
        return stack_of(self._assignment)

    def score(self, task: bytes) -> bytes:
        """Return a part: synced and with its name, its folder synced, or why it is not."""
        return msgspec.msgpack.encode(self._told(READ_TASK.decode(task)))

    def _told(self, task: RemoteTask) -> PartReport | Stopped:
        self._aside = apart(task.aside, self._name)
        blames = list[PoisonRow]()
        try:
            # A station that had nothing to do was not absent from its work: the pool's clocks begin here.
            for _ in self._pool.results(0.0):
                pass
            self._pool.submit(task.cut, task.known)
            while True:
                for found in self._pool.results(LISTEN_SECONDS):
                    if isinstance(found, PartResult):
                        # The runner's own sync may not reach what another machine has renamed.
                        self._disk.sync_folder(Path(self._aside).parent)
                        return PartReport(blames=blames, done=found)
                    blames.append(found)
        except (LecternError, OSError) as error:
            return stopped(error)
