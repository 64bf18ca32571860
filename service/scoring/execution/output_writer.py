"""The parts of a job, bound into its output while others are still being scored."""

import hashlib
from io import BufferedReader
from pathlib import Path

from service.scoring.execution.disk import Disk, Writer
from service.scoring.execution.interfaces import PartSpec, Workload
from service.scoring.execution.ledger import JobLedger
from service.scoring.execution.workspace import Workspace


class OutputWriter:
    """An output on its way: aside, in order, from the first part; a crash throws it away.

    Args:
        assignment: What it is to be.
        path: Where it is put together.
        workspace: Where its parts are.
        disk: Where it is written.

    Attributes:
        next: The number of the part that comes next.
    """

    def __init__(self, assignment: Workload, path: Path, workspace: Workspace, disk: Disk) -> None:
        self.next = 0
        self._workspace = workspace
        self._file = Writer(disk, path)
        try:
            self._assembly = assignment.assembly(self._file)
        except BaseException:
            self._file.abandon()
            raise

    def add(self, ledger: JobLedger) -> PartSpec | None:
        """Add the next part.

        Returns:
            The part if its bytes are not those that were noted: it must be scored again. ``None`` if all is well.
        """
        cut, done = ledger.part(self.next)
        assert done is not None, "it is added when it is done"
        try:
            with self._workspace.part(done.name).open("rb") as part:
                if not _has(part, done.digest):
                    return cut
                self._assembly.add(part)
        except FileNotFoundError:
            return cut
        self.next += 1
        return None

    def finish(self) -> tuple[str, int]:
        """That was the last part.

        Returns:
            The output's sha256 and size.
        """
        self._assembly.close()
        return self._file.finish()

    def abandon(self) -> None:
        """Leave it as it is."""
        self._file.abandon()


def _has(part: BufferedReader, digest: str) -> bool:
    """Return whether the file has this sha256; it is read from its beginning afterwards."""
    found = hashlib.file_digest(part, "sha256").hexdigest()
    part.seek(0)
    return found == digest
