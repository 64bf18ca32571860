"""A worker process: opens the model once, then scores part after part and writes each aside.

It is spoken to through one pipe, in MessagePack. It ends with the runner that started it, whatever either of them is
doing.
"""

import ctypes
import os
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic

import msgspec

from models.errors import InputChanged, JobError, LecternError, NoSpace
from service.scoring.execution.disk import Disk, Writer, is_full
from service.scoring.execution.interfaces import PartResult, PartScorer, PartSpec, RowError, ScoredPart, Workload
from service.scoring.execution.workspace import whole

_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# Larger than any array of a part; glibc takes no more.
_KEPT_BYTES = 2**25
# Of the rows that are not asked about when a single one is; nobody reads it.
_SKIPPED = RowError(code="skipped", reason="not asked")


class WorkOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A part to score.

    Attributes:
        aside: Where the part is to be written.
        known: Rows that get an error without being run.
        alone: Whether each row is run by itself, and announced.
        only: The one row to run; nothing is written then.
    """

    cut: PartSpec
    aside: str
    known: dict[int, RowError] = {}
    alone: bool = False
    only: int | None = None


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The model is open."""


class Began(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A row is about to be run by itself."""

    row: int


class Survived(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The one row that was to be run did not end the process."""


class Broke(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An error nobody foresaw; to whoever waits, the same as a worker that ended."""

    reason: str


class Stopped(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The job cannot go on.

    Attributes:
        kind: ``input_changed``, ``paused_no_space`` or ``job_failed``.
    """

    kind: str
    reason: str


Report = Ready | Began | PartResult | Survived | Broke | Stopped
KINDS: dict[str, type[LecternError]] = {kind.code: kind for kind in (InputChanged, NoSpace, JobError)}
READ_REPORT, READ_ORDER = msgspec.msgpack.Decoder(Report), msgspec.msgpack.Decoder(WorkOrder)


def work(pipe: Connection, assignment: Workload, parent: int) -> None:
    """Score what comes through the pipe, until it closes."""
    _end_with(parent)
    _keep_memory()
    # A terminal sends Ctrl-C to everybody; when to stop is for the runner to say.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

    # The runner is gone: so is the reason to be here.
    with suppress(EOFError, ConnectionError):
        _serve(assignment, pipe)


def _serve(assignment: Workload, pipe: Connection) -> None:
    def say(report: Report) -> None:
        pipe.send_bytes(msgspec.msgpack.encode(report))

    try:
        scorer = assignment.scorer()
    except (LecternError, OSError) as error:
        say(stopped(error))
        return
    except Exception as error:  # the border of a process: whoever waits is told
        say(Stopped(kind=JobError.code, reason=f"a worker cannot begin: {told(error)}"))
        return
    say(Ready())
    while True:
        order = READ_ORDER.decode(pipe.recv_bytes())
        say(score(scorer, order, Disk(), lambda row: say(Began(row=row))))


def score(scorer: PartScorer, order: WorkOrder, disk: Disk, begin: Callable[[int], None] | None = None) -> Report:
    """Carry out one order: the part is synced and has its name, or the report says why it does not."""
    started, known = monotonic(), order.known
    if order.only is not None:
        known = dict.fromkeys(range(order.cut.rows), _SKIPPED)
        del known[order.only]
    try:
        scored = scorer.score(order.cut, known=known, alone=order.alone, begin=begin if order.alone else None)
    except (LecternError, OSError) as error:
        return stopped(error)
    except Exception as error:  # the border of a row: it is tried again, and in the end the row is to blame
        return Broke(reason=told(error))
    if order.only is not None:
        return Survived()
    aside = Path(order.aside)
    try:
        digest, size = _write(scored, aside, disk)
        part_path = whole(aside, scored.errors, digest)
        disk.rename(aside, part_path)
    except (LecternError, OSError) as error:
        return stopped(error)
    except Exception as error:  # every row has its answer: none is to blame, and no other try helps
        return Stopped(kind=JobError.code, reason=f"part {order.cut.index} cannot be written: {told(error)}")
    return PartResult(
        number=order.cut.index,
        name=part_path.name,
        rows=scored.rows,
        errors=scored.errors,
        digest=digest,
        size=size,
        seconds=monotonic() - started,
        first_errors=scored.first_errors,
    )


def _write(scored: ScoredPart, path: Path, disk: Disk) -> tuple[str, int]:
    file = Writer(disk, path)
    try:
        scored.write(file)
        return file.finish()
    finally:
        file.abandon()


def told(error: Exception) -> str:
    """Return an unforeseen error's type and where it was raised: its message may quote a row."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(frame.filename).name}, line {frame.lineno}"


def stopped(error: LecternError | OSError) -> Stopped:
    """Return an error as what is said of it: of errors that a caller tells apart, the kind is kept."""
    if isinstance(error, OSError):
        kind = NoSpace.code if is_full(error) else JobError.code
        return Stopped(kind=kind, reason=f"{type(error).__name__}: {error}")
    kind = error.code if isinstance(error, InputChanged) else JobError.code
    return Stopped(kind=kind, reason=str(error))


def _end_with(parent: int) -> None:
    """Have the kernel end this process when the runner's ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _keep_memory() -> None:
    """Have freed memory stay for the next part: given back, the kernel has to clear every page of it for every part."""
    with suppress(AttributeError):  # another C library than glibc
        set_option = ctypes.CDLL(None).mallopt
        set_option(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        set_option(_M_TRIM_THRESHOLD, 2**31 - 1)
