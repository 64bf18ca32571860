"""One run of one job: a child process, what it says on the way, and how it ended."""

import asyncio
import fcntl
import os
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, time

import msgspec
from msgspec import Struct

from models.paths import REPOSITORY
from service.jobs.paths import JobPaths
from service.jobs.store import JobState, StoredJob
from service.settings import Settings
from service.telemetry.state_metrics import count_rows

# A child that was asked to pause may finish writing.
PAUSE_SECONDS = 10.0
# How long, and how often in that time, one that a foreman has left behind is waited for.
HELD_SECONDS, HELD_TURNS = 6.0, 60
MOST_LINE_BYTES = 2**20
LAST_WORDS = 20
# Of no use to a child, or not to be known by it.
HIDDEN = frozenset(("LECTERN_KEYS", "LECTERN_KEYS_FILE", "PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"))
LOCK = "running.lock"
# Of Python's tracebacks: a place in the code, and an exception's name without what it says.
_PLACE = re.compile(r'\s*File "[^"]*", line \d+(?:, in [\w.<>]+)?')
_KIND = re.compile(r"[\w.]*(?:Error|Exception|Interrupt|Warning)\b")

# The exit codes of ``python -m service.scoring``.
DONE, TOO_MANY_ERRORS, CHANGED, HELD, FULL, ONLY_ERRORS, INTERRUPTED = 0, 3, 4, 5, 6, 7, 130
# Begun before an upgrade: what is done of it is not what would be done now.
STACK_CHANGED = "stack_changed"
CODES = {TOO_MANY_ERRORS: "too_many_errors", CHANGED: "input_changed"}


class ProcessEvent(Struct, frozen=True):
    """Describe what a child says in a line of JSON."""

    event: str = ""
    rows: int = 0
    rows_total: int | None = None
    rows_counted: int = 0
    errors: int = 0
    rows_per_second: float | None = None
    seconds_left: float | None = None
    code: str | None = None
    reason: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    notes: tuple[str, ...] = ()


class JobOutcome(Struct, frozen=True):
    """Describe how a run ended.

    Attributes:
        state: Of the job now; ``RUNNING`` when the child died and may be tried again.
        words: What else the child said, for the log.
    """

    state: JobState
    code: str | None = None
    reason: str | None = None
    last: ProcessEvent = ProcessEvent()
    words: str = ""


class JobProcess:
    """A job's child process.

    Attributes:
        job: Whose.
        progress: What it said last.
        moved: When it last got on, seconds since 1970.
    """

    def __init__(self, job: StoredJob, paths: JobPaths, command: Sequence[str], settings: Settings) -> None:
        self.job, self.paths, self.command, self.settings = job, paths, command, settings
        self._began = monotonic()
        self.progress, self.last = ProcessEvent(), ProcessEvent()
        self.moved, self._told = time(), (job.rows, job.errors)
        self._process: Process | None = None
        self._words: deque[str] = deque(maxlen=LAST_WORDS)
        self._is_pausing = self._is_cancelled = False

    @property
    def seconds(self) -> float:
        """Return how long the job has run, this time and before."""
        return self.job.seconds + monotonic() - self._began

    async def work(self) -> JobOutcome:
        """Run the child to its end.

        Raises:
            InvalidRequest: If the input is not there any more.
        """
        source = await asyncio.to_thread(self._find)
        lock = await self._lock()
        if lock is None:
            return JobOutcome(JobState.PAUSED, "job_held", "the run before this one has not ended yet")
        try:
            self._process = await self._start(source, lock)
        finally:
            os.close(lock)  # the child has it too, so it is held while anything of the child lives
        try:
            if self._is_cancelled:
                self.cancel()
            if self._is_pausing:
                self._ask_to_pause()
            await self._listen(self._process)
            status = await self._process.wait()
        finally:
            self.signal(signal.SIGKILL)
        return self._ending(status, source)

    def _find(self) -> Path:
        source = self.paths.input(self.job)
        if source.is_dir():
            self.paths.check_members(source)
        return source

    async def _lock(self) -> int | None:
        """The job's lock, once the child of a foreman who died has paused; ``None`` if it cannot even be killed."""
        lock = os.open(self.paths.folder(self.job.id) / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        for turn in range(HELD_TURNS):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if turn == HELD_TURNS // 2:
                    with suppress(ValueError, ProcessLookupError):
                        os.killpg(int(os.pread(lock, 20, 0)), signal.SIGKILL)
                await asyncio.sleep(HELD_SECONDS / HELD_TURNS)
            else:
                return lock
        os.close(lock)
        return None

    async def _start(self, source: Path, lock: int) -> Process:
        arguments = ["run", self.job.model, str(source), str(self.paths.output(self.job))]
        settings = self.settings
        memory = 0 if settings.uses_cuda else settings.jobs_memory_bytes
        bounds = [f"--max-rows={settings.jobs_rows}", f"--max-bytes={settings.jobs_output_bytes}"]
        options = [
            *bounds,
            "--progress",
            "json",
            "--workers",
            str(settings.jobs_workers),
            *self.job.options.arguments(),
        ]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "service.jobs.launcher", str(os.getpid()), str(lock), str(memory)),
            *(*self.command, *arguments, *options),
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=PIPE,
            limit=MOST_LINE_BYTES,
            cwd=REPOSITORY,
            env={name: value for name, value in os.environ.items() if name not in HIDDEN},
            pass_fds=(lock,),
        )
        # For who finds the lock held: whatever holds it is of this group, so the number has not been given away again.
        os.pwrite(lock, b"%-20d" % process.pid, 0)
        return process

    async def _listen(self, process: Process) -> None:
        assert process.stderr is not None
        while True:
            try:
                line = await process.stderr.readline()
            except ValueError:  # longer than any line of ours
                continue
            if not line:
                return
            try:
                event = msgspec.json.decode(line, type=ProcessEvent)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                self._note(line.decode(errors="replace").rstrip())
                continue
            if event.event == "progress":
                if (event.rows, event.rows_counted) > (self.progress.rows, self.progress.rows_counted):
                    self.moved = time()
                self.progress = event
            else:
                self.last = event

    def _note(self, line: str) -> None:
        """Keep what says where and of what kind an error was; all else may quote the rows."""
        if (found := _PLACE.match(line) or _KIND.match(line)) is not None:
            self._words.append(found[0])

    def tell_rows(self, rows: int, errors: int) -> None:
        """Count how far the job has got beyond what it, or the run before this one, has told already."""
        before = self._told
        self._told = max(rows, before[0]), max(errors, before[1])
        count_rows(self._told[0] - before[0], self._told[1] - before[1])

    # From outside.

    def signal(self, number: int) -> None:
        """Send a signal to the child and all it has started."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                _send(self._process.pid, number)

    def pause(self) -> None:
        """Ask the child to end so that it can go on later; soon it is not asked any more."""
        if self._is_pausing:
            return
        self._is_pausing = True
        self._ask_to_pause()
        asyncio.get_running_loop().call_later(PAUSE_SECONDS, self.signal, signal.SIGKILL)

    def _ask_to_pause(self) -> None:
        # Not the whole group: the child finishes what its own processes are at.
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.terminate()

    def cancel(self) -> None:
        """End the child at once."""
        self._is_cancelled = True
        self.signal(signal.SIGKILL)

    # How it ended.

    def _ending(self, status: int, source: Path) -> JobOutcome:
        reason = self._plain(self.last.reason, source)
        words = "\n".join(self._words)
        if self._is_cancelled:
            return JobOutcome(JobState.CANCELLED)
        if status in (DONE, ONLY_ERRORS):
            return JobOutcome(JobState.DONE, last=self.last)
        if self._is_pausing or status == INTERRUPTED:
            return JobOutcome(JobState.PAUSED, words=words)
        if status == HELD:
            return JobOutcome(JobState.PAUSED, "job_held", "another process holds this job", words=words)
        if status == FULL:
            return JobOutcome(JobState.PAUSED_NO_SPACE, "no_space", reason or "the disk is full", words=words)
        if status < 0 or status > 128:
            return JobOutcome(JobState.RUNNING, "job_died", f"the job's process was ended by signal {_number(status)}")
        code = CODES.get(status) or self.last.code or "job_failed"
        if code == STACK_CHANGED:
            return JobOutcome(JobState.PAUSED, code, reason, words=words)
        return JobOutcome(JobState.FAILED, code, reason or "the job could not be run", words=words)

    def _plain(self, reason: str | None, source: Path) -> str | None:
        """Return the child's sentence with our places, and bounds, called by the names that the caller knows."""
        names = {
            str(source): self.job.input or "the upload",
            str(self.paths.output(self.job)): "the result",
            str(self.paths.folder(self.job.id)): "the job",
            str(self.paths.state.parent): "the service",
            str(self.paths.root): "the storage root",
            "--max-rows": "LECTERN_JOBS_ROWS",
            "--max-bytes": "LECTERN_JOBS_OUTPUT_BYTES",
        }
        for path in sorted(names, key=len, reverse=True):
            reason = reason and reason.replace(path, names[path])
        return reason


def _send(leader: int, number: int) -> None:
    """To a child and its group; to itself as long as it has made none, which is the first thing that it does."""
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        os.kill(leader, number)


def _number(status: int) -> int:
    return -status if status < 0 else status - 128
