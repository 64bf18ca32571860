"""Locate jobs on disk: inputs below the storage root, which is only read, and files of ours in a folder of ours.

Whatever words a caller names an input by, nothing outside the root is read, and no answer tells what is there.
"""

import os
import shutil
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from time import time

from models.errors import Fault, InvalidRequest, SettingsError
from service.jobs.store import StoredJob
from service.settings import Settings
from service.settings.environment import home

FOLDER = "lectern-jobs"
# An upload that has stood still so long has been given up; its limits on time are much shorter.
GIVEN_UP_SECONDS = 3600.0
NOT_THERE = "no such file or folder below the storage root"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPaths:
    """The two folders of one service.

    Attributes:
        root: The storage root, without links.
        state: Ours, without links.
    """

    root: Path
    state: Path

    @property
    def store(self) -> Path:
        """Return the file in which jobs are written down."""
        return self.state / "jobs.sqlite"

    @property
    def lock(self) -> Path:
        """Whoever holds it runs the jobs."""
        return self.state / "foreman.lock"

    def folder(self, identity: str) -> Path:
        """Return all that one job has."""
        return self.state / "jobs" / identity

    def output(self, job: StoredJob) -> Path:
        """The result, once there is one."""
        return self.folder(job.id) / f"output.{job.output_format}"

    def upload(self, job: StoredJob) -> Path:
        """Return the input that came with the request."""
        return self.folder(job.id) / f"input.{job.suffix}"

    def input(self, job: StoredJob) -> Path:
        """Return where the job's input is now.

        Raises:
            InvalidRequest: If it is not there, or not below the root any more.
        """
        return self.upload(job) if job.input is None else self.find(job.input)

    def find(self, name: str) -> Path:
        """Return the file or folder that a caller means, without links.

        Raises:
            InvalidRequest: If there is none below the root.
        """
        steps = PurePosixPath(name).parts
        # fsspec reads "a::b" and "a://b" as addresses wherever they stand.
        if name.startswith("/") or ".." in steps or "::" in name or "://" in name:
            raise _refused("expected a path below the storage root, without `..` or a protocol")
        try:
            found = (self.root / name).resolve(strict=True)
            mode = found.stat().st_mode
        except (OSError, ValueError, RuntimeError):  # not there, a NUL or half a pair, links in a circle
            raise _refused(NOT_THERE) from None
        is_outside = not found.is_relative_to(self.root)
        is_ours = found.is_relative_to(self.state) or self.state.is_relative_to(found)
        if is_outside or is_ours or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise _refused(NOT_THERE)
        return found

    def check_members(self, folder: Path) -> None:
        """See that nothing in a folder leads elsewhere.

        Raises:
            InvalidRequest: If it holds a link, a pipe or a device.
        """
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                self.check_members(Path(entry.path))
            elif not entry.is_file(follow_symlinks=False):
                raise _refused("the folder holds something that is neither a file nor a folder")

    def make_folder(self, identity: str) -> Path:
        """Return an empty folder for a new job."""
        folder = self.folder(identity)
        folder.mkdir(mode=0o700)
        return folder

    def remove(self, identity: str) -> None:
        """Nothing of a job stays."""
        shutil.rmtree(self.folder(identity), ignore_errors=True)

    def begin_anew(self, identity: str) -> None:
        """Nothing stays of what was done of a job."""
        for entry in os.scandir(self.folder(identity)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)

    def keep_output(self, job: StoredJob) -> None:
        """Of a job that is done only the result stays."""
        kept = self.output(job)
        with suppress(FileNotFoundError):  # it has just been forgotten
            for entry in os.scandir(self.folder(job.id)):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                elif Path(entry.path) != kept:
                    os.unlink(entry.path)

    def folders(self) -> dict[str, bool]:
        """Return the jobs that have a folder, each with whether nothing has been written to it for long."""
        now, found = time(), os.scandir(self.state / "jobs")
        return {entry.name: now - _last_write(Path(entry.path)) > GIVEN_UP_SECONDS for entry in found}


def open_job_paths(settings: Settings) -> JobPaths:
    """Return the folders of these settings.

    Raises:
        SettingsError: If the root is none.
    """
    root, state = Path(settings.jobs_root), home() / FOLDER
    try:
        state.parent.mkdir(parents=True, exist_ok=True)
        for folder in (state, state / "jobs"):
            folder.mkdir(mode=0o700, exist_ok=True)
            folder.chmod(0o700)  # made by an earlier version
        os.listdir(root)
    except OSError as error:
        raise SettingsError(f"LECTERN_JOBS_ROOT: {error.filename}: {error.strerror}") from error
    return JobPaths(root=root.resolve(), state=state.resolve())


def _last_write(folder: Path) -> float:
    try:
        return max(entry.stat().st_mtime for entry in (folder, *folder.iterdir()))
    except OSError:
        return time()


def _refused(reason: str) -> InvalidRequest:
    return InvalidRequest(faults=[Fault(("input",), reason)])
