"""Describe the result of a job that is done."""

import hashlib
from pathlib import Path

from msgspec import Struct

from service.jobs.job_process import ProcessEvent


class JobResult(Struct, frozen=True):
    """A finished output."""

    rows: int
    errors: int
    bytes: int
    sha256: str
    notes: tuple[str, ...] = ()


def result_of(output: Path, said: ProcessEvent) -> JobResult:
    """Return the output as it lies there.

    Its digest is what the child said, where the size agrees; else it is computed.

    Args:
        output: The file.
        said: The child's last event.
    """
    size = output.stat().st_size
    sha256 = said.sha256 if said.sha256 and said.bytes == size else None
    if sha256 is None:
        with output.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return JobResult(said.rows, said.errors, size, sha256, said.notes)
