"""A storage root with inputs, jobs over them, and somebody to run them by a stand-in for the scorer."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop
from msgspec.structs import replace

from service.jobs.job_request import OutputFormat, RequestOptions
from service.jobs.paths import JobPaths
from service.jobs.scheduler import JobScheduler
from service.jobs.store import JobState, JobStore, StoredJob
from service.settings import Settings

STAND_IN = (sys.executable, str(Path(__file__).with_name("stand_in.py")))


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """On the event loop that serves."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(work(), 50))


class Yard:
    """A storage root with inputs, and the jobs over them."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.paths = JobPaths(root=folder / "root", state=folder / "state")
        self.paths.root.mkdir()
        (self.paths.state / "jobs").mkdir(parents=True)
        self.store, self.settings = JobStore(self.paths.store), Settings(jobs_root=str(self.paths.root), **settings)
        self.gate = folder / "gate"

    def submit(self, *lines: str, **changes: Any) -> str:
        """Return a job over these rows."""
        identity = f"{len(self.store.all(None, 1000)):032x}"
        (self.paths.root / identity).write_text("".join(f"{line}\n" for line in lines))
        job = StoredJob(
            id=identity,
            owner="",
            key=None,
            payload="",
            model="double:1",
            input=identity,
            suffix="",
            output_format=OutputFormat.CSV,
            options=RequestOptions(),
            created=1.0,
        )
        self.paths.make_folder(identity)
        self.store.submit(replace(job, **changes), 100)
        return identity

    def job(self, identity: str) -> StoredJob:
        return self.store.get(identity, None)

    async def until(self, identity: str, *states: JobState) -> StoredJob:
        while (job := self.job(identity)).state not in states:
            await asyncio.sleep(0.01)
        return job

    async def until_rows(self, identity: str, rows: int) -> StoredJob:
        while (job := self.job(identity)).rows < rows:
            await asyncio.sleep(0.01)
        return job

    @asynccontextmanager
    async def led(self, foreman: JobScheduler | None = None) -> AsyncIterator[JobScheduler]:
        """A foreman at work."""
        here = foreman or self.scheduler()
        standing = asyncio.create_task(here.campaign())
        try:
            yield here
        finally:
            here.is_over = True
            await standing

    def scheduler(self, *command: str) -> JobScheduler:
        return JobScheduler(self.store, self.paths, self.settings, command or STAND_IN, lambda: False)

    def runs(self, identity: str) -> list[str]:
        return (self.paths.folder(identity) / "runs").read_text().splitlines()
