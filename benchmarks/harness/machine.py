"""The machine: which cores who runs on, what processes used, and what to write about it."""

import ctypes
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from models.paths import REPOSITORY

CORES = tuple(sorted(os.sched_getaffinity(0)))
SERVER_CORES = {CORES[0]}
CLIENT_CORES = {CORES[-1]}
BOTH_CORES = {CORES[0], CORES[-1]}
MEGABYTE = 1e6
_PR_SET_CHILD_SUBREAPER = 36


@contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """Processes started inside run on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def adopt_orphans() -> None:
    """From now on a process whose parent ended becomes this one's child, so that none can be left behind."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def tree(leader: int) -> list[psutil.Process]:
    """Return a process and all its descendants, the elders first; empty when it is gone."""
    try:
        root = psutil.Process(leader)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def end(processes: Sequence[psutil.Process], patience: float) -> None:
    """Wait for processes that were asked to end, then end those that did not, the elders first."""
    _, alive = psutil.wait_procs(processes, timeout=patience)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=5)


def end_descendants() -> None:
    """End whatever this process started and is still there."""
    end(psutil.Process().children(recursive=True), patience=0)


def cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    """CPU time of processes since they began."""
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def machine_seconds() -> tuple[float, float]:
    """CPU time of all processes of the machine, and time stolen by other machines, since it began."""
    times = psutil.cpu_times()
    return times.user + times.nice + times.system, times.steal


def memory_mb(processes: Sequence[psutil.Process]) -> dict[str, float]:
    """Megabytes of processes together; shared pages count in each (``rss``), in parts (``pss``) or not (``uss``)."""
    totals = {"rss": 0.0, "pss": 0.0, "uss": 0.0}
    for process in processes:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            found = process.memory_full_info()
            for kind in totals:
                totals[kind] += getattr(found, kind) / MEGABYTE
    return {kind: round(total, 1) for kind, total in totals.items()}


def describe() -> dict[str, Any]:
    """Return the machine, without names or paths."""
    return {
        "cpu": _cpu_model(),
        "cores": len(CORES),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "python": platform.python_version(),
        "load_before": [round(load, 2) for load in os.getloadavg()],
    }


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def commit() -> str:
    """Return the commit of the working tree, ``-dirty`` when it has changes, ``unknown`` without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)  # noqa: S603  our own
    return done.stdout.strip() or "unknown"
