"""Workers that stand still are found by their silence, and replaced.

Every process of the service writes the time on the monotonic clock into a file of its own once a second; the parent
kills who has not done so for long. Circus, which BentoML's parent is made of, replaces any process that has died.
"""

import asyncio
import logging
import os
import signal
import struct
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import wraps
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from service.settings.environment import home, parent_pid

logger = logging.getLogger("lectern.watchdog")
BEAT_SECONDS = 1.0
SILENT_SECONDS = 10.0
# BentoML looks for dead workers every ten seconds.
LOOK_SECONDS = 0.5
WORKER = "worker-"  # what the names of gateways begin like
_TIME = struct.Struct("d")
# When it last said so, how many models answer there, and what follows is its name.
_BEAT = struct.Struct("dI")


class Living(NamedTuple):
    """Describe what a process that lives is for, and how many models answer there."""

    name: str
    models: int


def beat_file(pid: int) -> Path:
    """Return where a process writes."""
    return home() / "lectern-beats" / str(pid)


async def beat(name: str, models: int = 0) -> None:
    """Say that this process's event loop turns, for ever; end when the parent is no more.

    Args:
        name: What the process is for, e.g. ``worker-1``.
        models: How many models it answers for, now that it is ready.
    """
    file, parent = beat_file(os.getpid()), parent_pid()
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY)
    try:
        with suppress(OSError):
            os.pwrite(descriptor, _BEAT.pack(monotonic(), models) + name.encode(), 0)
        while True:
            with suppress(OSError):  # a full disk must not end it; eight bytes that are there are overwritten
                os.pwrite(descriptor, _TIME.pack(monotonic()), 0)
            if os.getppid() != parent:  # nobody would replace this process, and it would keep the port
                os.kill(os.getpid(), signal.SIGTERM)
                return
            await asyncio.sleep(BEAT_SECONDS)
    finally:
        os.close(descriptor)
        file.unlink(missing_ok=True)


def living() -> dict[int, Living]:
    """Return the processes that say they live, and what each is for."""
    found = {}
    with suppress(FileNotFoundError):
        for file in beat_file(0).parent.iterdir():
            with suppress(OSError, ValueError, struct.error):
                said = file.read_bytes()
                _, models = _BEAT.unpack_from(said)
                found[int(file.name)] = Living(said[_BEAT.size :].decode(), models)
    return {pid: process for pid, process in found.items() if process.name}


def kill_silent(pids: Collection[int]) -> None:
    """Kill those of the processes that began to say they live and have stopped; forget what others have said."""
    with suppress(FileNotFoundError):
        for file in beat_file(0).parent.iterdir():
            if int(file.name) not in pids:
                file.unlink(missing_ok=True)
    for pid in pids:
        file = beat_file(pid)
        with suppress(OSError, struct.error):
            (said,) = _TIME.unpack_from(file.read_bytes())
            if monotonic() - said > SILENT_SECONDS:
                logger.error("process %d has stood still for %.0f seconds and is replaced", pid, monotonic() - said)
                file.unlink()
                os.kill(pid, signal.SIGKILL)


def watched(create_arbiter: Callable[..., Any], greet: Callable[[Collection[Living]], bool]) -> Callable[..., Any]:
    """BentoML's way to make its parent, with one that looks twice a second for dead and for silent workers.

    Args:
        create_arbiter: BentoML's own way.
        greet: Asked with its processes until it says that nobody need ask it again.
    """

    @wraps(create_arbiter)
    def create(watchers: list[Any], **arguments: Any) -> Any:
        arbiter = create_arbiter(watchers, **{"check_delay": LOOK_SECONDS, **arguments})
        manage = arbiter.manage_watchers

        has_greeted = False

        def look() -> Any:
            nonlocal has_greeted
            pids = [pid for watcher in arbiter.iter_watchers() for pid in watcher.processes]
            kill_silent(pids)
            has_greeted = has_greeted or greet([one for pid, one in living().items() if pid in pids])
            return manage()

        arbiter.manage_watchers = look
        return arbiter

    return create
