"""Resolve where an output goes from what the command line says."""

from pathlib import Path
from typing import TypeAlias

from models.errors import JobError
from service.scoring.addresses import is_local, local_path
from service.scoring.execution.disk import Disk
from service.scoring.execution.output import LocalOutput
from service.scoring.execution.remote_output import RemoteOutput, locate
from service.scoring.execution.workspace import default_folder

# A path of this machine, or an address.
Out: TypeAlias = Path | str


def open_output(out: Out, work: Path, disk: Disk) -> LocalOutput | RemoteOutput:
    """Return the output there, of a job with this work folder.

    Raises:
        JobError: If something is in its place, or in its manifest's, that is no file: it is never replaced.
    """
    if isinstance(out, Path):
        for path in (out, out.with_name(f"{out.name}.manifest.json")):
            if path.exists() and not path.is_file():
                raise JobError(f"{path} is a folder, a pipe, a socket or a device; give the output another name")
    return LocalOutput(out.absolute(), disk) if isinstance(out, Path) else RemoteOutput(out, work, disk)


def is_same(out: Out, source: str) -> bool:
    """Return whether an output would take the place of the input itself, whatever each is called.

    Raises:
        JobError: If nothing is known of such addresses.
    """
    if isinstance(out, Path):
        return is_local(source) and out.exists() and out.samefile(local_path(source))
    return not is_local(source) and locate(out) == locate(source)


def work_folder(out: Out, work: Path | None, *, is_needed: bool = True) -> Path:
    """Return the job's work folder: the one that was said, or the one beside the output.

    Raises:
        JobError: If none was said, it is needed, and the output is not on this machine.
    """
    if work is not None:
        return work
    if isinstance(out, Path):
        return default_folder(out)
    if is_needed:
        raise JobError(f"{out} is not on this machine: the job needs --work FOLDER for what it has done so far")
    # Nothing of a job that is done is left here.
    return Path("/nonexistent")
