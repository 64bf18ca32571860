"""Jobs that are killed at random instants and run again: ``python -m chaos.batch``.

The runner and its workers are real processes. They are forked from this one, which has imported everything, instead of
being started anew: a start takes a second, in which there is nothing to kill. ``test_runners.py`` kills started ones.
"""

import hashlib
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from service.scoring.execution.disk import Disk
from service.scoring.execution.interfaces import PartScorer, Workload
from service.scoring.execution.job import Job
from service.scoring.execution.output import LocalOutput
from service.scoring.execution.workspace import Workspace, default_folder
from service.scoring.file_assignment import FileAssignment
from service.scoring.workers.pool import Pool

FORK = multiprocessing.get_context("fork")
ROW_SECONDS = 60.0
# One trial in ten is killed again while it resumes.
AGAIN = 0.1


class Forking:
    """Makes worker processes that, unlike forked ones and like started ones, inherit no open file but their pipe."""

    Pipe = staticmethod(FORK.Pipe)

    @staticmethod
    def Process(*, target: Callable[..., None], args: Any, daemon: bool) -> Any:  # noqa: N802  as multiprocessing has it
        """Return a process, not yet begun."""
        return FORK.Process(target=_alone, args=(target, args), daemon=daemon)


def _alone(target: Callable[..., None], args: Any) -> None:
    mine = args[0].fileno()
    os.closerange(3, mine)
    os.closerange(mine + 1, 4096)
    target(*args)


class Telling(FileAssignment):
    """Describe what is asked, with workers that write down each part they begin with."""

    def scorer(self) -> PartScorer:
        """Return the model, open."""
        return _Telling(super().scorer(), Path(self.asked.source).with_name("log"))


class _Telling:
    def __init__(self, scorer: PartScorer, log: Path) -> None:
        self._scorer, self._log = scorer, log

    def score(self, cut: Any, **more: Any) -> Any:
        """See ``PartScorer``."""
        with self._log.open("ab", buffering=0) as log:
            log.write(b"%d\n" % cut.index)
        return self._scorer.score(cut, **more)


@dataclass(slots=True)
class KillCounts:
    """Describe what a format's trials came to.

    Attributes:
        kills: How many runners were killed at work.
        twice: How many trials were killed again.
        workers_killed: How many single workers were killed besides.
        failed: Runners that ended by themselves, and not well.
        differences: Trials whose output had another sha256.
        repeated: Parts that were begun again, over all trials.
        too_often: Trials in which they were more than one per worker that was killed, by itself or with its runner.
        partial: Trials in which something partial was visible after a kill.
        left: Trials that left files behind.
    """

    trials: int = 0
    kills: int = 0
    twice: int = 0
    workers_killed: int = 0
    failed: int = 0
    differences: int = 0
    repeated: int = 0
    too_often: int = 0
    partial: int = 0
    left: int = 0

    @property
    def is_met(self) -> bool:
        """Return whether every promise held."""
        return not (self.failed or self.differences or self.partial or self.left or self.too_often)


def run_job(asked: Workload, out: Path, workers: int) -> None:
    """One runner: what ``python -m service.scoring run`` does once everything is imported."""
    disk = Disk()
    job = Job(
        assignment=asked, output=LocalOutput(out, disk), workspace=Workspace(default_folder(out), disk), disk=disk
    )
    context: Any = Forking
    job.run(partial(_open_pool, asked, workers, context))


def _open_pool(asked: Workload, workers: int, context: Any, aside: Callable[[int], str]) -> Pool:
    return Pool(asked, workers=workers, row_seconds=ROW_SECONDS, aside=aside, context=context)


def _runner(asked: Workload, out: Path, workers: int) -> None:
    os.setpgrp()
    run_job(asked, out, workers)


def attempt(asked: Workload, out: Path, workers: int, kill: Callable[[int], None] | None, tally: KillCounts) -> bool:
    """Run, and kill meanwhile.

    Returns:
        Whether the runner was killed before its end.
    """
    process = FORK.Process(target=_runner, args=(asked, out, workers))
    process.start()
    if kill is not None and process.pid is not None:
        kill(process.pid)
    process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        tally.failed += 1
    return process.exitcode == -signal.SIGKILL


class Killer:
    """Kills a runner at a uniform instant; in one trial of four a worker of its first, in one of four all at once."""

    def __init__(self, draw: random.Random, seconds: float, tally: KillCounts) -> None:
        self._draw, self._seconds, self._tally = draw, seconds, tally

    def __call__(self, pid: int) -> None:
        """Wait, and kill."""
        instant, how = self._draw.uniform(0, self._seconds), self._draw.random()
        if how < 1 / 4:
            time.sleep(instant / 2)
            self._kill_worker(pid)
            instant /= 2
        time.sleep(instant)
        with suppress(ProcessLookupError):
            if how > 3 / 4:
                os.killpg(pid, signal.SIGKILL)
            else:
                os.kill(pid, signal.SIGKILL)

    def _kill_worker(self, pid: int) -> None:
        with suppress(OSError):
            workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            if workers:
                os.kill(int(self._draw.choice(workers)), signal.SIGKILL)
                self._tally.workers_killed += 1


def hold(asked: FileAssignment, folder: Path, name: str, *, trials: int, workers: int = 2, seed: int = 0) -> KillCounts:
    """Kill a job at random instants, so many times; its input lies in ``folder``."""
    draw, tally, out, log = random.Random(seed), KillCounts(), folder / name, folder / "log"  # noqa: S311  no secrets
    seconds, want = _undisturbed(asked, out, workers)
    while tally.trials < trials:
        tally.trials += 1
        _clear(out, log)
        # A little beyond its end too: the last operations are the delicate ones.
        killer, kills, before = Killer(draw, seconds * 1.1, tally), 0, tally.workers_killed
        kills += attempt(asked, out, workers, killer, tally)
        tally.partial += _is_partial(out, want)
        if draw.random() < AGAIN:
            kills += attempt(asked, out, workers, killer, tally)
            tally.twice += 1
            tally.partial += _is_partial(out, want)
        attempt(asked, out, workers, None, tally)
        tally.differences += _sha256(out) != want
        tally.left += default_folder(out).exists()
        tally.kills += kills
        repeated = _repeated(log)
        tally.repeated += repeated
        tally.too_often += repeated > kills * workers + tally.workers_killed - before
    return tally


def _undisturbed(asked: FileAssignment, out: Path, workers: int) -> tuple[float, str]:
    """Return how long it takes and what comes out, at its second time."""
    for _ in range(2):
        _clear(out, out.with_name("log"))
        began = time.monotonic()
        attempt(asked, out, workers, None, KillCounts())
    return time.monotonic() - began, _sha256(out)


def _repeated(log: Path) -> int:
    begun = log.read_text().split()
    return len(begun) - len(set(begun))


def _is_partial(out: Path, want: str) -> bool:
    return out.exists() and _sha256(out) != want


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _clear(out: Path, log: Path) -> None:
    shutil.rmtree(default_folder(out), ignore_errors=True)
    for path in (out, out.with_name(f"{out.name}.manifest.json"), log):
        path.unlink(missing_ok=True)
