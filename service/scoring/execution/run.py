"""From a plan to an output: what a runner does between taking a job and clearing up after it."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from time import monotonic
from typing import Protocol, TypeAlias

import msgspec

from models.errors import DataError, InputChanged, JobError, JobTooLarge, LecternError, TooManyErrors
from service.scoring.execution.context import JobContext
from service.scoring.execution.disk import Writer
from service.scoring.execution.interfaces import PartResult, PartSpec, PoisonRow, RowError
from service.scoring.execution.ledger import JobLedger
from service.scoring.execution.lock import Lock
from service.scoring.execution.output import FORMAT, OutputManifest, seal, to_bytes
from service.scoring.execution.output_writer import OutputWriter
from service.scoring.execution.planning import JobPlan, read_through
from service.scoring.execution.progress import JobProgress
from service.scoring.execution.workspace import Name, read_name

# How long the workers are listened to before anything else is looked at; how long parts may still take when the job is
# to pause; how often the input is looked at from outside.
TURN_SECONDS, GRACE_SECONDS, LOOK_SECONDS = 0.2, 1.0, 5.0
# Reasons of error rows that a person is shown.
MOST_TOLD = 3


class Scorers(Protocol):
    """Describe what scores parts: ``Pool``."""

    @property
    def room(self) -> int:
        """Return how many more parts it takes now."""
        ...

    @property
    def running(self) -> set[int]:
        """Numbers of the parts that are being scored at this moment."""
        ...

    def expect(self, parts: int) -> None:
        """So many parts are coming."""
        ...

    def submit(self, cut: PartSpec, known: dict[int, RowError]) -> None:
        """One more part."""
        ...

    def results(self, seconds: float) -> Iterator[PartResult | PoisonRow]:
        """Parts done and rows blamed within this time."""
        ...


OpenScorers: TypeAlias = Callable[[Callable[[int], str]], AbstractContextManager[Scorers]]


class JobRun:
    """One runner's way through the parts of a job.

    Args:
        job: What it works on.
        ledger: What is done of it.
        lock: What keeps others away.
        stamp: What its files are marked with.
        plan: What is to be done.
    """

    def __init__(self, job: JobContext, ledger: JobLedger, lock: Lock, stamp: str, plan: JobPlan) -> None:
        self._job, self._ledger, self._lock = job, ledger, lock
        self._entry, self._mark, self._passed_over, self._notes = plan
        self._stamp = stamp
        self._output = job.output.aside("output", stamp, job.workspace.folder)
        self._take_over(ledger.begin(self._stamp))
        totals = ledger.totals()
        self._rows, self._errors, self._bytes = totals.rows, totals.errors, totals.bytes
        self._told: tuple[str, ...] = ()
        self._looked = monotonic()
        # The pace is counted from the first part on: what comes before it is the workers' start.
        self._first: tuple[float, int] | None = None
        self._asked, self._again = -1, deque[PartSpec]()

    def _take_over(self, stamps: frozenset[str]) -> None:
        """Keep the parts that workers of earlier runners had finished; throw away those they had only begun."""
        workspace = self._job.workspace
        for path in workspace.files():
            name = read_name(path.name)
            noted = self._ledger.part(name.number)[1] if name and name.stamp in stamps else None
            if noted is not None and noted.name == path.name:
                continue
            if noted is None and name and name.stamp in stamps and sha256_of(path) == name.digest:
                workspace.settle_parts()
                self._ledger.record([as_done(name, path)])
            else:
                workspace.remove(path)
        workspace.sweep()
        self._job.output.sweep()

    def to_the_end(self, scorers: Scorers) -> OutputManifest:
        """Score what is not done, put the output together, commit it, clear up."""
        self._check_bounds()
        binding = OutputWriter(self._job.assignment, self._output, self._job.workspace, self._job.disk)
        try:
            while binding.next < self._entry.parts:
                self._turn(scorers, binding)
            digest, size = binding.finish()
        except BaseException as error:
            binding.abandon()
            # Whoever took the job away may have removed what the workers were at: then that is the reason.
            if isinstance(error, LecternError):
                self._lock.confirm()
            # It may fill the disk, and is made anew in any case.
            with suppress(OSError):
                self._job.disk.remove(self._output)
            raise
        return self._commit(digest, size)

    def _turn(self, scorers: Scorers, binding: OutputWriter) -> None:
        """Hand out parts, keep those that came back, add the next one to the output."""
        self._job.stop.check() if not scorers.running else self._pause(scorers)
        while scorers.room > 0 and (cut := self._next_cut()) is not None:
            scorers.submit(cut, self._known(cut.index))
        is_next_there = self._ledger.part(binding.next)[1] is not None
        self._take(scorers, 0.0 if is_next_there else TURN_SECONDS)
        if is_next_there:
            self._bind(binding)
        self._look_at_input(LOOK_SECONDS)
        self._tell()

    def _bind(self, binding: OutputWriter) -> None:
        damaged = binding.add(self._ledger)
        if damaged is not None:
            _, done = self._ledger.part(damaged.index)
            self._ledger.forget(damaged.index)
            self._rows -= damaged.rows
            self._errors -= done.errors if done else 0
            self._bytes -= done.size if done else 0
            self._again.append(damaged)

    def _take(self, scorers: Scorers, seconds: float) -> None:
        """Keep what comes within this time: its name first, noted then."""
        for result in scorers.results(seconds):
            self._lock.confirm()
            if isinstance(result, PoisonRow):
                self._ledger.blame(result)
                continue
            self._job.workspace.settle_parts()
            self._ledger.record([result])
            self._rows += result.rows
            self._errors += result.errors
            self._bytes += result.size
            self._told = (*self._told, *result.first_errors)[:MOST_TOLD]
            self._first = self._first or (monotonic(), self._rows)
            self._check_bounds()

    def _pause(self, scorers: Scorers) -> None:
        """If somebody asked for it: let what is being scored come to its end, for a moment, and stop."""
        if not self._job.stop.is_requested:
            return
        awaited, until = scorers.running, monotonic() + GRACE_SECONDS
        while scorers.running & awaited and monotonic() < until:
            self._take(scorers, TURN_SECONDS)
        self._job.stop.check()

    def _next_cut(self) -> PartSpec | None:
        if self._again:
            return self._again.popleft()
        cut = self._ledger.next_pending(self._asked)
        if cut is not None:
            self._asked = cut.index
        return cut

    def _known(self, number: int) -> dict[int, RowError]:
        return {blame.row: RowError(code=blame.code, reason=blame.reason) for blame in self._ledger.blames(number)}

    def _check_bounds(self) -> None:
        terms, found = self._job.terms, f"{self._errors} error rows in {self._rows} rows"
        most, rate = terms.max_errors, terms.max_error_rate
        if (most is not None and self._errors > most) or (rate is not None and self._errors > rate * self._entry.rows):
            self._tell()
        if most is not None and self._errors > most:
            raise TooManyErrors(f"{found}, more than --max-errors {most}")
        if rate is not None and self._errors > rate * self._entry.rows:
            raise TooManyErrors(f"{found}, more than --max-error-rate {rate:g} of {self._entry.rows}")
        if terms.max_bytes is not None and self._bytes > terms.max_bytes:
            raise JobTooLarge(f"{self._bytes} bytes in {self._rows} rows, more than --max-bytes {terms.max_bytes}")

    def _look_at_input(self, every_seconds: float) -> None:
        """Check that the input looks as it did; if not, that it still is what it was."""
        if monotonic() - self._looked < every_seconds:
            return
        try:
            mark = self._job.assignment.mark()
        except DataError as error:
            raise InputChanged(f"the input can no longer be read: {error}") from error
        if mark != self._mark:
            if read_through(self._job).digest != self._entry.input_digest:
                raise InputChanged("the input was changed while it was scored")
            self._mark = mark
        self._looked = monotonic()

    def _tell(self) -> None:
        since, rows = self._first or (monotonic(), self._rows)
        pace = (self._rows - rows) / max(monotonic() - since, 1e-6)
        left = (self._entry.rows - self._rows) / pace if pace > 0 else None
        self._job.watch.tell(
            JobProgress(
                rows=self._rows,
                rows_total=self._entry.rows,
                errors=self._errors,
                first_errors=self._told,
                rows_per_second=round(pace, 1),
                seconds_left=None if left is None else round(left, 1),
            )
        )

    def _commit(self, digest: str, size: int) -> OutputManifest:
        """The manifest gets its place; then, once, the output."""
        job = self._job
        path = job.output.aside("manifest", self._stamp, job.workspace.folder)
        self._look_at_input(0.0)
        manifest = seal(
            OutputManifest(
                format=FORMAT,
                job=self._entry.id,
                identity=self._entry.identity,
                spec=msgspec.json.decode(self._entry.spec),
                input_sha256=self._entry.input_digest,
                sha256=digest,
                bytes=size,
                rows=self._entry.rows,
                errors=self._errors,
                passed_over=self._passed_over or msgspec.UNSET,
                notes=self._notes or msgspec.UNSET,
                parts=[*self._ledger.digests()],
                stack=job.assignment.stack(),
            )
        )
        with Writer(job.disk, path) as file:
            file.write(to_bytes(manifest))
            file.finish()
        self._lock.confirm()
        if not (self._entry.overwrites or job.terms.overwrites) and job.output.exists():
            raise JobError(f"{job.output.path} appeared meanwhile and is not this job's; --overwrite replaces it")
        job.output.commit(self._output, path)
        job.workspace.clear()
        return manifest


def as_done(name: Name, path: Path) -> PartResult:
    """Return a part that an earlier runner's worker finished, and nobody noted."""
    return PartResult(
        number=name.number,
        name=path.name,
        rows=0,
        errors=name.errors,
        digest=name.digest,
        size=path.stat().st_size,
        seconds=0.0,
    )


def sha256_of(path: Path) -> str:
    """Of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
