"""The plan of a job: its parts, and whether what is asked now is what was asked when it began."""

import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

from models.errors import InputChanged, JobError, StackChanged
from service.scoring.execution.context import JobContext
from service.scoring.execution.interfaces import InputSource, PartSpec, Workload
from service.scoring.execution.ledger import JobLedger, LedgerEntry
from service.scoring.execution.progress import JobProgress
from service.scoring.inputs.interfaces import check_rows


class JobPlan(NamedTuple):
    """Describe what is to be done.

    Attributes:
        entry: As it is noted.
        mark: How the input looked from outside before it was read.
        passed_over: Files of the input that are none of its rows.
        notes: What was made of the rest, a line each.
    """

    entry: LedgerEntry
    mark: str
    passed_over: int
    notes: tuple[str, ...]


def make_plan(job: JobContext, ledger: JobLedger, expect: Callable[[int], None]) -> JobPlan:
    """Return the job as it was planned, now or by an earlier runner.

    Args:
        job: Whose plan it is.
        ledger: Where it is noted.
        expect: Told how many parts are coming, as they are counted.

    Raises:
        JobError: If the ledger is another job's.
        StackChanged: If versions or machine are not those it began with.
        InputChanged: If the input is not what it was then.
    """
    mark, entry = job.assignment.mark(), ledger.read()
    if entry is None:
        return _plan_anew(job, ledger, expect, mark)
    folder = job.workspace.folder
    if entry.identity != identity_of(job.assignment):
        raise JobError(f"another job is unfinished in {folder}: resume it, or remove that folder")
    stack = stack_of(job.assignment)
    if entry.stack != stack and not job.terms.mixes:
        raise StackChanged(f"begun with {entry.stack}, here is {stack}: bytes may differ; --mix goes on nevertheless")
    expect(entry.parts - ledger.totals().parts)
    source = read_through(job)
    if source.digest != entry.input_digest:
        raise InputChanged(f"the input is not what it was when this job began; to score it as it is, remove {folder}")
    return JobPlan(entry, mark, source.passed_over, source.notes)


def _plan_anew(job: JobContext, ledger: JobLedger, expect: Callable[[int], None], mark: str) -> JobPlan:
    source, rows, parts = job.assignment.source(), 0, 0
    with ledger.planning() as plan:
        for cut in _told(job, source):
            plan.add(cut)
            rows, parts = rows + cut.rows, parts + 1
            expect(parts)
        entry = LedgerEntry(
            id=hashlib.sha256(job.assignment.identity + source.digest.encode()).hexdigest(),
            identity=identity_of(job.assignment),
            spec=job.assignment.spec,
            input_digest=source.digest,
            rows=rows,
            parts=parts,
            stack=stack_of(job.assignment),
            overwrites=job.terms.overwrites,
        )
        plan.close(entry)
    return JobPlan(entry, mark, source.passed_over, source.notes)


def read_through(job: JobContext) -> InputSource:
    """Return the input as it is now, read once: it knows its sha256."""
    source = job.assignment.source()
    for _ in _told(job, source):
        pass
    return source


def _told(job: JobContext, source: InputSource) -> Iterator[PartSpec]:
    """Yield the cuts; whoever watches is told, and who may ask to pause is asked."""
    rows = 0
    for cut in source.cuts():
        job.stop.check()
        rows += cut.rows
        check_rows(rows, job.terms.max_rows)
        job.watch.tell(JobProgress(rows=0, rows_total=None, errors=0, rows_counted=rows))
        yield cut


def identity_of(assignment: Workload) -> str:
    """Digest of everything that decides the output's bytes, but the input's own."""
    return hashlib.sha256(assignment.identity).hexdigest()


def stack_of(assignment: Workload) -> str:
    """Versions and machine, as one text."""
    return msgspec.json.encode(assignment.stack(), order="deterministic").decode()
