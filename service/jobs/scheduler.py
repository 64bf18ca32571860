"""Schedule jobs: in one process of all that share a home, elected by a lock that its death releases.

Every gateway worker stands for it. The one that holds the lock starts the children, writes down what they say, and
clears away; when it dies its children end (``service.jobs.launcher``), and the next one finds in the book what ran.
"""

import asyncio
import fcntl
import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic, time

from models.errors import HttpError, UnknownJob
from service.jobs.job_process import STACK_CHANGED, JobOutcome, JobProcess, ProcessEvent
from service.jobs.paths import JobPaths
from service.jobs.result import JobResult, result_of
from service.jobs.store import JobState, JobStore, StoredJob
from service.settings import Settings
from service.telemetry.state_metrics import count_job, show_jobs

logger = logging.getLogger("lectern.jobs")

LOOK_SECONDS = 0.5
SAVE_SECONDS = 1.0
SWEEP_SECONDS = 60.0
TROUBLE_SECONDS = 5.0
# After a trouble that may pass.
REST_SECONDS = {JobState.PAUSED: 5.0, JobState.PAUSED_NO_SPACE: 60.0}
# How often a child may die without a row more than the time before.
MOST_DEATHS = 3


class JobScheduler:
    """Runs jobs while it holds the lock.

    Attributes:
        runs: The children, by the job's id.
        is_over: Whether it shall stop.
    """

    def __init__(
        self,
        store: JobStore,
        paths: JobPaths,
        settings: Settings,
        command: Sequence[str],
        is_draining: Callable[[], bool],
    ) -> None:
        self.store, self.paths, self.settings, self.command = store, paths, settings, command
        self.is_over, self._is_draining = False, is_draining
        self.runs: dict[str, JobProcess] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._rests: dict[str, float] = {}
        self._deaths: dict[str, tuple[int, int]] = {}
        self._swept_at = -SWEEP_SECONDS
        self._turns, self._turn = dict[str, int](), 0

    @property
    def is_ending(self) -> bool:
        """Return whether nothing is to be begun any more."""
        return self.is_over or self._is_draining()

    async def campaign(self) -> None:
        """Stand for election, and lead when elected; until the service ends."""
        while not self.is_ending:
            lock = self._elected()
            if lock is not None:
                try:
                    await self._lead()
                except Exception:  # the process border: another worker, or this one later, takes over what is open
                    logger.exception("the jobs are not looked after", extra={"event": "jobs_failed"})
                    await asyncio.sleep(TROUBLE_SECONDS)
                finally:
                    await self._leave()
                    os.close(lock)
            await asyncio.sleep(LOOK_SECONDS)

    def _elected(self) -> int | None:
        lock = os.open(self.paths.lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return None
        return lock

    async def _lead(self) -> None:
        await asyncio.to_thread(self.store.take_over)
        while not self.is_ending:
            if self.runs:
                for identity in await asyncio.to_thread(self.store.over, list(self.runs)):
                    if identity in self.runs:
                        self.runs[identity].cancel()
            await self._begin()
            await self._show()
            if monotonic() - self._swept_at > SWEEP_SECONDS:
                self._swept_at = monotonic()
                await asyncio.to_thread(self._sweep)
            await asyncio.sleep(LOOK_SECONDS)

    async def _show(self) -> None:
        """Say how many jobs there are, and when the one that has stood still longest last got on."""
        active = await asyncio.to_thread(self.store.active)
        show_jobs(active, min((run.moved for run in self.runs.values()), default=0.0))

    async def _leave(self) -> None:
        """Pause every child; the book says so before the lock is given away."""
        for run in self.runs.values():
            run.pause()
        if self._tasks:
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks, self.runs = {}, {}
        show_jobs({}, 0.0)

    async def _begin(self) -> None:
        for identity in [identity for identity, task in self._tasks.items() if task.done()]:
            self._tasks.pop(identity)
        self._rests = {identity: until for identity, until in self._rests.items() if until > monotonic()}
        while len(self._tasks) < self.settings.jobs_running:
            waiting = [*self._tasks, *self._rests]
            job = await asyncio.to_thread(self.store.next, waiting, self._turns, self._full())
            if job is None:
                return
            self._turn += 1
            self._turns[job.owner] = self._turn
            run = JobProcess(job, self.paths, self.command, self.settings)
            self.runs[job.id] = run
            self._tasks[job.id] = asyncio.create_task(self._attend(run))

    def _full(self) -> list[str]:
        """Keys that have half of all that may run: whatever theirs do, others' jobs go on."""
        most = max(1, self.settings.jobs_running // 2)
        running = Counter(run.job.owner for run in self.runs.values())
        return [owner for owner, count in running.items() if owner and count >= most]

    # One job.

    async def _attend(self, run: JobProcess) -> None:
        identity = run.job.id
        saving: asyncio.Task[None] | None = None
        try:
            now = run.job.started or time()
            values = {"state": JobState.RUNNING, "started": now, "code": None, "reason": None}
            if not await asyncio.to_thread(self.store.change, identity, values):
                return  # cancelled a moment ago
            tell("job_started", run.job)
            saving = asyncio.create_task(self._save(run))
            await self._end(run, await self._outcome(run))
            await asyncio.to_thread(self._clear, identity)
        except Exception:  # the process border: what could not be written down is begun anew, after the others
            self._rests[identity] = monotonic() + TROUBLE_SECONDS
            logger.exception("job %s was not looked after", identity, extra={"event": "jobs_failed", "job": identity})
        finally:
            if saving is not None:
                saving.cancel()
            self.runs.pop(identity, None)

    async def _outcome(self, run: JobProcess) -> JobOutcome:
        try:
            async with asyncio.timeout(max(0.0, self.settings.jobs_seconds - run.job.seconds)):
                return await run.work()
        except TimeoutError:
            reason = f"it ran for more than {self.settings.jobs_seconds:g} seconds (LECTERN_JOBS_SECONDS)"
            return JobOutcome(JobState.FAILED, "took_too_long", reason)
        except HttpError as error:
            reason = error.faults[0].reason if error.faults else str(error)
            return JobOutcome(JobState.FAILED, error.code, reason)
        except FileNotFoundError:  # cancelled and forgotten at once
            return JobOutcome(JobState.FAILED, "job_failed", "the job's files are gone")

    async def _save(self, run: JobProcess) -> None:
        """Write the progress down whenever there is some."""
        saved = ProcessEvent()
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            if run.progress is saved:
                continue
            saved = run.progress
            try:
                await asyncio.to_thread(partial(self.store.change, is_durable=False), run.job.id, _progress(run))
                run.tell_rows(saved.rows, saved.errors)
            except HttpError as error:  # the disk is full: it will be told again
                logger.warning("the progress of job %s is not written down: %s", run.job.id, error)

    async def _end(self, run: JobProcess, ending: JobOutcome) -> None:
        job, state = run.job, ending.state
        if state is JobState.RUNNING:
            ending = self._died(job, run.progress.rows, ending)
            state = ending.state
        if state is JobState.CANCELLED:
            count_job("cancelled")
            tell("job_cancelled", job)
            return
        if state is JobState.DONE:
            await self._finish(run, await asyncio.to_thread(result_of, self.paths.output(job), ending.last))
            return
        values = {**_progress(run), "state": state, "code": ending.code, "reason": ending.reason}
        if state is JobState.FAILED:
            values |= {"ended": time(), "seconds_left": None}
            count_job("failed")
        else:
            if ending.code == STACK_CHANGED:
                await asyncio.to_thread(self.paths.begin_anew, job.id)
            self._rests[job.id] = monotonic() + REST_SECONDS[state]
        await asyncio.to_thread(self.store.change, job.id, values)
        run.tell_rows(run.progress.rows, run.progress.errors)
        tell(f"job_{state}", job, code=ending.code, reason=ending.reason, words=ending.words)

    async def _finish(self, run: JobProcess, result: JobResult) -> None:
        progress = {"rows": result.rows, "errors": result.errors, "rows_total": result.rows, "seconds_left": None}
        output = {"output_bytes": result.bytes, "output_sha256": result.sha256, "notes": result.notes}
        ended = {"state": JobState.DONE, "ended": time(), "code": None, "reason": None}
        if await asyncio.to_thread(self.store.change, run.job.id, {**progress, **output, **ended}):
            run.tell_rows(result.rows, result.errors)
            count_job("done")
            tell("job_done", run.job, rows=result.rows, errors=result.errors)

    def _died(self, job: StoredJob, rows: int, ending: JobOutcome) -> JobOutcome:
        """Try again, but not for ever what dies where it died before."""
        deaths, before = self._deaths.get(job.id, (0, -1))
        deaths = 1 if rows > before else deaths + 1
        self._deaths[job.id] = deaths, max(rows, before)
        if deaths < MOST_DEATHS:
            return JobOutcome(JobState.PAUSED, ending.code, ending.reason, words=ending.words)
        return JobOutcome(JobState.FAILED, ending.code, f"{ending.reason}, {deaths} times at the same place")

    # Clearing away.

    def _clear(self, identity: str) -> None:
        """Leave of a job what its state asks for."""
        state = self.store.states().get(identity)
        if state in (None, JobState.CANCELLED, JobState.FAILED):
            self.paths.remove(identity)
        elif state is JobState.DONE:
            self._keep_output(identity)

    def _keep_output(self, identity: str) -> None:
        with suppress(UnknownJob):  # forgotten a moment ago
            self.paths.keep_output(self.store.get(identity, None))

    def _sweep(self) -> None:
        """Clear away what was left when somebody died in the middle of it, or has been kept long enough."""
        for identity in self.store.forget(time() - self.settings.jobs_keep_seconds):
            self.paths.remove(identity)
        states = self.store.states()
        for identity, is_given_up in self.paths.folders().items():
            known = states.get(identity)
            is_over = known in (JobState.CANCELLED, JobState.FAILED) or (known is None and is_given_up)
            if identity in self.runs:
                continue
            if is_over:
                self.paths.remove(identity)
            elif known is JobState.DONE:
                self._keep_output(identity)


def _progress(run: JobProcess) -> dict[str, object]:
    names = ("rows", "rows_total", "errors", "rows_per_second", "seconds_left")
    return {"seconds": run.seconds} | {name: getattr(run.progress, name) for name in names}


def tell(event: str, job: StoredJob, **more: object) -> None:
    """Log what became of a job."""
    told = {name: value for name, value in more.items() if value not in (None, "")}
    say = logger.warning if event in ("job_failed", "job_paused_no_space") else logger.info
    said = f": {more['reason']}" if more.get("reason") else ""
    say("job %s %s%s", job.id, event.removeprefix("job_"), said, extra={"event": event, "job": job.id} | told)
