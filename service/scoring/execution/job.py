"""A job: an input's parts scored, kept, and made one output, exactly once, whatever happens on the way.

The order of things is what makes it so. A part is written aside, synced and renamed into its place before the ledger
notes it. The output is put together aside from parts that are what was noted, synced, and, after its manifest, renamed
once; then the work folder goes. Whoever begins again after any of these steps comes to the same bytes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from secrets import token_hex

from models.errors import JobError, LecternError, NoSpace, printable
from service.scoring.execution.context import JobContext
from service.scoring.execution.disk import is_full
from service.scoring.execution.ledger import JobLedger
from service.scoring.execution.lock import Lock
from service.scoring.execution.output import OutputManifest
from service.scoring.execution.planning import JobPlan, identity_of, make_plan, read_through
from service.scoring.execution.run import JobRun, OpenScorers, Scorers


class Job(JobContext):
    """One runner's work on a job."""

    def run(self, open_scorers: OpenScorers) -> tuple[OutputManifest, bool]:
        """Begin the job, or go on with it, to its end.

        Args:
            open_scorers: Opens what scores parts, given where each part is to be written.

        Returns:
            What the output was made of, and whether there was anything to do.

        Raises:
            LecternError: If it cannot go on; what is done stays done.
        """
        with _space_told():
            done = self._find_done()
            if done is not None:
                self._clear()
                return done, False
            with self._locked() as lock:
                return self._run(lock, open_scorers), True

    def _run(self, lock: Lock, open_scorers: OpenScorers) -> OutputManifest:
        with JobLedger(self.workspace.ledger) as ledger:
            self.workspace.settle()
            stamp = token_hex(4)
            with open_scorers(lambda number: str(self.workspace.aside(number, stamp))) as scorers:
                return JobRun(self, ledger, lock, stamp, self._plan(ledger, scorers)).to_the_end(scorers)

    def _plan(self, ledger: JobLedger, scorers: Scorers) -> JobPlan:
        try:
            plan = make_plan(self, ledger, scorers.expect)
        except LecternError:
            # What never began leaves nothing behind.
            if ledger.read() is None:
                self.workspace.clear()
            raise
        if not plan.entry.overwrites:
            self._refuse_other_output()
        return plan

    def _find_done(self) -> OutputManifest | None:
        """The manifest, if this very job is done and its output is whole; ``None`` if there is work to do."""
        if not self.output.exists():
            if not (self.terms.overwrites or self.workspace.ledger.exists()):
                self.output.manifest()  # a file of that name that is no manifest is somebody's own
            return None
        manifest = self._read_manifest()
        if manifest is not None and read_through(self).digest == manifest.input_sha256:
            return manifest
        # An unfinished job may have been told to overwrite.
        if not self.workspace.ledger.exists():
            self._refuse_other_output()
        return None

    def _read_manifest(self) -> OutputManifest | None:
        """Return the manifest, if it is of this assignment and of the output as it is."""
        try:
            manifest = self.output.manifest()
        except JobError:
            if not self.terms.overwrites:
                raise
            return None
        if manifest is None or manifest.identity != identity_of(self.assignment):
            return None
        return manifest if manifest.sha256 == self.output.sha256() else None

    def _refuse_other_output(self) -> None:
        if self.output.exists() and not self.terms.overwrites:
            raise JobError(f"{self.output.path} is there already and not this job's; --overwrite replaces it")

    def _clear(self) -> None:
        """Remove what a job that is done left behind."""
        if self.workspace.folder.exists():
            with self._locked():
                self.workspace.clear()

    @contextmanager
    def _locked(self) -> Iterator[Lock]:
        for folder in (*self.output.folders(), self.workspace.folder.parent):
            if not folder.is_dir():
                raise JobError(f"there is no folder {folder} to write to; make it first")
        self.workspace.prepare()
        lock = Lock(self.workspace.lock)
        try:
            yield lock
        finally:
            lock.release()


@contextmanager
def _space_told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise of_disk(error) from error


def of_disk(error: OSError) -> JobError:
    """Return what an error of the machine means for a job, in a sentence."""
    where, what = printable(f"{error.filename}: ") if error.filename else "", (error.strerror or str(error)).lower()
    if is_full(error):
        return NoSpace(f"{where}{what}")
    return JobError(f"{where}{what}")
