"""Say how a job is to be run."""

from dataclasses import dataclass, field

import msgspec

from service.scoring.execution.disk import Disk
from service.scoring.execution.interfaces import Workload
from service.scoring.execution.output import LocalOutput
from service.scoring.execution.progress import NoProgress, ProgressReporter, Stop
from service.scoring.execution.remote_output import RemoteOutput
from service.scoring.execution.workspace import Workspace


class RunPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Describe what one run is held to; none of it decides a byte.

    Attributes:
        max_errors: Most error rows; ``None``: any number.
        max_error_rate: The same as a part of all rows, 0 to 1.
        max_rows: Most rows; ``None``: any number.
        max_bytes: Most bytes of the scored parts together; ``None``: any number.
        overwrites: Whether a file that is in the place of the output may be replaced.
        mixes: Whether it may go on with other versions, or on another machine, than it began with.
    """

    max_errors: int | None = None
    max_error_rate: float | None = None
    max_rows: int | None = None
    max_bytes: int | None = None
    overwrites: bool = False
    mixes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobContext:
    """Describe what one run of a job works on, and what it is held to.

    Attributes:
        assignment: What is to be scored.
        output: What it becomes.
        workspace: Where its parts are kept meanwhile.
        disk: Where everything is written.
        terms: What this run is held to.
        watch: Who wants to know how far it is.
        stop: Who may ask it to pause.
    """

    assignment: Workload
    output: LocalOutput | RemoteOutput
    workspace: Workspace
    disk: Disk = field(default_factory=Disk)
    terms: RunPolicy = field(default_factory=RunPolicy)
    watch: ProgressReporter = field(default_factory=NoProgress)
    stop: Stop = field(default_factory=Stop)
