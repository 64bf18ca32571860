"""Answer questions about a job without working on it: progress, whether its output is whole, how long it is."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import msgspec

from models.errors import JobError
from service.scoring.execution.disk import Disk
from service.scoring.execution.ledger import JobLedger, Totals
from service.scoring.execution.lock import find_holder
from service.scoring.execution.output import LocalOutput
from service.scoring.execution.remote_output import RemoteOutput
from service.scoring.execution.workspace import Workspace
from service.scoring.file_assignment import FileAssignment, read_spec
from service.scoring.inputs.registry import open_source

SAMPLE_ROWS = 1024


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Describe how far a job is.

    Attributes:
        state: ``running``, ``paused``, ``planning`` or ``done``.
        holder: Who works on it; ``None``: nobody.
    """

    state: str
    model: str = ""
    rows: int = 0
    rows_total: int | None = None
    parts: int = 0
    parts_total: int | None = None
    errors: int = 0
    holder: str | None = None
    sha256: str | None = None


def ask_status(output: LocalOutput | RemoteOutput, work: Path) -> Status:
    """Return how far the job of an output is.

    Raises:
        JobError: If there is no such job.
    """
    workspace = Workspace(work, Disk())
    if workspace.ledger.exists():
        return _unfinished(workspace)
    manifest = output.manifest()
    if manifest is None or not output.exists():
        raise JobError(f"there is no job of {output.path}")
    return Status(
        state="done",
        model=manifest.spec["model"],
        rows=manifest.rows,
        rows_total=manifest.rows,
        parts=len(manifest.parts),
        parts_total=len(manifest.parts),
        errors=manifest.errors,
        sha256=manifest.sha256,
    )


def _unfinished(workspace: Workspace) -> Status:
    holder = find_holder(workspace.lock)
    with JobLedger(workspace.ledger, is_read_only=True) as ledger:
        entry = ledger.read()
        totals = ledger.totals() if entry else Totals(rows=0, parts=0, errors=0, bytes=0)
    if entry is None:
        return Status(state="planning", holder=holder)
    return Status(
        state="running" if holder else "paused",
        model=read_spec(entry.spec).model,
        rows=totals.rows,
        rows_total=entry.rows,
        parts=totals.parts,
        parts_total=entry.parts,
        errors=totals.errors,
        holder=holder,
    )


def verify(located_output: LocalOutput | RemoteOutput) -> Iterator[tuple[str, bool, str]]:
    """What the manifest says, held against what is there: what was compared, whether it is equal, and how it is not.

    Raises:
        LecternError: If there is no manifest, or it is damaged itself.
    """
    manifest = located_output.manifest()
    if manifest is None:
        raise JobError(f"there is no {located_output.manifest_path}")
    yield "manifest", True, manifest.digest
    found = located_output.sha256()
    yield "output", found == manifest.sha256, _difference(found, manifest.sha256)
    source = open_source(read_spec(msgspec.json.encode(manifest.spec)))
    for _ in source.cuts():
        pass
    yield "input", source.digest == manifest.input_sha256, _difference(source.digest, manifest.input_sha256)


def _difference(found: str | None, noted: str) -> str:
    return noted if found == noted else f"found {found or 'nothing'}, noted {noted}"


class Estimate(NamedTuple):
    """Describe what a job would be."""

    rows: int
    parts: int
    seconds: float


def estimate(asked: FileAssignment, workers: int) -> Estimate:
    """Return how many rows and parts, and how long, by scoring the first rows as a small part of their own, twice."""
    rows = parts = 0
    for cut in asked.source().cuts():
        rows, parts = rows + cut.rows, parts + 1
    if not rows:
        return Estimate(rows, parts, 0.0)
    small = asked.in_parts_of(SAMPLE_ROWS)
    first, scorer = next(iter(small.source().cuts())), small.scorer()
    for _ in range(2):  # the first time is slower: nothing is warm
        started = perf_counter()
        scorer.score(first).write(BytesIO())
        seconds = perf_counter() - started
    return Estimate(rows, parts, seconds / first.rows * rows / workers)


def as_json(value: Any) -> str:
    """Return one line."""
    return msgspec.json.encode(value).decode()
