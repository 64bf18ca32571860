"""Worker processes, and what becomes of a part whose worker ends or stands still.

Such a part is tried again row by row; each row is announced before it is run, so it is known where it ended. That row
is then run once more, all by itself: only a row that fails again is to blame, becomes an error row, and is not run any
more. Workers that somebody killed or stopped are no row's fault, and cost nothing but time.
"""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from time import monotonic
from typing import Any

import msgspec

from models.errors import JobError
from service.scoring.execution.interfaces import PartResult, PartSpec, PoisonRow, RowError, Workload
from service.scoring.workers.worker import KINDS, READ_REPORT, Began, Broke, Ready, Report, Stopped, Survived, WorkOrder
from service.scoring.workers.worker_handle import Attempt, WorkerHandle

# The next part lies in the pipe while one is scored: nobody waits for this process.
ORDERS_EACH = 2
# A worker's start: import, and a model of any size from a cold disk.
START_SECONDS = 300.0
# How much longer than the slowest part so far a part of its size may take.
SLACK = 20.0
# Until a first part is done nobody knows how long one takes.
UNMEASURED = 10.0
MOST_FRUITLESS, MOST_STILLBORN = 10, 3
# Longer than this without a look at the workers, and this process itself was stopped.
ABSENCE_SECONDS = 2.0

DIED, STOOD_STILL = "runner_failed", "runner_timed_out"
REASONS = {
    DIED: "the process that scores ended at this row, twice",
    STOOD_STILL: "the process that scores gave no answer for this row in the time it had, twice",
}


class Pool:
    """Scores parts in worker processes; a context manager that leaves none behind.

    Args:
        assignment: What the workers open.
        workers: How many there are.
        row_seconds: How long one row may take.
        aside: Where a part is to be written.
        context: How processes are made.
    """

    def __init__(
        self,
        assignment: Workload,
        *,
        workers: int,
        row_seconds: float,
        aside: Callable[[int], str],
        context: Any = None,
    ) -> None:
        self._assignment, self._row_seconds, self._aside = assignment, row_seconds, aside
        self._context = context or multiprocessing.get_context("spawn")
        self._again: deque[Attempt] = deque()
        self._slowest, self._stillborn = 0.0, 0
        self._looked = monotonic()
        self._most, self._workers = workers, list[WorkerHandle]()

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.end()

    @property
    def room(self) -> int:
        """Return how many more parts it takes now."""
        waiting = len(self._again) + sum(len(worker.orders) for worker in self._workers)
        return ORDERS_EACH * self._most - waiting

    @property
    def running(self) -> set[int]:
        """Numbers of the parts that are being scored at this moment."""
        return {worker.orders[0].cut.index for worker in self._workers if worker.orders}

    def expect(self, parts: int) -> None:
        """So many parts are coming: processes take a second to begin, and may do so before the parts are counted."""
        while len(self._workers) < min(parts, self._most):
            self._workers.append(WorkerHandle(self._assignment, self._context))

    def submit(self, cut: PartSpec, known: dict[int, RowError]) -> None:
        """One more part."""
        self._again.append(Attempt(cut=cut, known=known))
        self._hand_out()

    def results(self, seconds: float) -> Iterator[PartResult | PoisonRow]:
        """Parts done and rows blamed, as they come within this time; ends with the first that came.

        Raises:
            LecternError: If the job cannot go on.
        """
        self._forgive_absence(seconds)
        by_pipe = {worker.pipe: worker for worker in self._workers}
        for pipe in wait(list(by_pipe), seconds):
            assert isinstance(pipe, Connection)
            yield from self._listen(by_pipe[pipe])
        for worker in [*self._workers]:
            if worker.silence() > self._limit(worker):
                yield from self._lose(worker, STOOD_STILL)
        self._hand_out()

    def _listen(self, worker: WorkerHandle) -> Iterator[PartResult | PoisonRow]:
        """Everything the worker has said; if it has ended, that too."""
        try:
            while worker.pipe.poll():
                report = READ_REPORT.decode(worker.pipe.recv_bytes())
                worker.heard()
                if isinstance(report, Broke):
                    yield from self._lose(worker, DIED, report.reason)
                    return
                if isinstance(report, PartResult):
                    self._hand_out()
                yield from self._understand(worker, report)
                self._hand_out()
        except (EOFError, OSError):
            yield from self._lose(worker, DIED)

    def _understand(self, worker: WorkerHandle, report: Report) -> Iterator[PartResult | PoisonRow]:
        match report:
            case Ready():
                worker.is_ready, self._stillborn = True, 0
            case Began(row=row):
                worker.row = row
            case Stopped(kind=kind, reason=reason):
                raise KINDS[kind](reason)
            case Survived():
                trial = worker.orders.popleft()
                worker.row = None
                self._retry(msgspec.structs.replace(trial, suspect=None, fruitless=trial.fruitless + 1))
            case PartResult():
                trial = worker.orders.popleft()
                worker.row = None
                if not trial.alone:
                    self._slowest = max(self._slowest, report.seconds / max(1, report.rows))
                yield report

    def _lose(self, worker: WorkerHandle, code: str, cause: str = "") -> Iterator[PoisonRow]:
        """End a worker, begin another, and decide about the part it was at; those it had not begun go to others."""
        worker.end()
        cause = cause or (f"exit code {worker.process.exitcode}" if code == DIED else "no answer in time")
        if not worker.is_ready:
            self._stillborn += 1
            if self._stillborn >= MOST_STILLBORN:
                raise JobError(f"{self._stillborn} workers ended before they were ready")
        self._workers[self._workers.index(worker)] = WorkerHandle(self._assignment, self._context)
        trial = worker.orders.popleft() if worker.orders else None
        self._again.extendleft(reversed(worker.orders))
        if trial is not None and worker.is_ready:
            yield from self._judge(msgspec.structs.replace(trial, cause=cause), worker.row, code)
        elif trial is not None:
            self._again.appendleft(trial)

    def _judge(self, trial: Attempt, row: int | None, code: str) -> Iterator[PoisonRow]:
        if not trial.alone or row is None:
            self._retry(msgspec.structs.replace(trial, alone=True, fruitless=trial.fruitless + trial.alone))
        elif trial.suspect is None:
            self._retry(msgspec.structs.replace(trial, suspect=row))
        else:
            error = RowError(code=code, reason=REASONS[code])
            known = trial.known | {row: error}
            self._retry(msgspec.structs.replace(trial, known=known, suspect=None, fruitless=0))
            yield PoisonRow(part=trial.cut.index, row=row, code=error.code, reason=error.reason)

    def _retry(self, trial: Attempt) -> None:
        if trial.fruitless > MOST_FRUITLESS:
            times = f"the workers ended {trial.fruitless} times at part {trial.cut.index}"
            raise JobError(f"{times}, and no row is to blame; the last time: {trial.cause}")
        self._again.appendleft(trial)

    def _hand_out(self) -> None:
        """Every part that waits goes to the worker with the least to do."""
        while self._again:
            worker = min(self._workers, key=lambda each: len(each.orders), default=None)
            if (worker is None or worker.orders) and len(self._workers) < self._most:
                self.expect(len(self._workers) + 1)
                worker = self._workers[-1]
            if worker is None or len(worker.orders) >= ORDERS_EACH:
                return
            self._send(worker, self._again.popleft())

    def _send(self, worker: WorkerHandle, trial: Attempt) -> None:
        if not worker.orders and worker.is_ready:
            worker.heard()
            worker.row = None
        worker.orders.append(trial)
        order = WorkOrder(
            cut=trial.cut,
            aside=self._aside(trial.cut.index),
            known=trial.known,
            alone=trial.alone,
            only=trial.suspect,
        )
        # A worker that has just ended is noticed when it is listened to.
        try:
            worker.pipe.send_bytes(msgspec.msgpack.encode(order))
        except OSError:
            return

    def _limit(self, worker: WorkerHandle) -> float:
        """Seconds without a word after which a worker stands still."""
        if not worker.is_ready:
            return START_SECONDS
        if not worker.orders:
            return float("inf")
        trial = worker.orders[0]
        if trial.alone and worker.row is not None:
            return self._row_seconds
        if not self._slowest:
            return UNMEASURED * self._row_seconds
        return max(self._row_seconds, SLACK * self._slowest * trial.cut.rows)

    def _forgive_absence(self, seconds: float) -> None:
        """Nobody is to blame for the time in which this process itself stood still."""
        absence = monotonic() - self._looked - seconds
        if absence > ABSENCE_SECONDS:
            for worker in self._workers:
                worker.since += absence
        self._looked = monotonic()
