"""Become a program that gives way to everything else and ends with whoever started it.

``python -m service.jobs.launcher PARENT LOCK MEMORY PROGRAM [ARGUMENT...]``. What is set here holds for the program and
for whatever it starts, but the death signal, which is its own.
"""

import ctypes
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

import click

# prctl(2)
SET_DEATH_SIGNAL = 1
STACK_BYTES = 2**24
SELF = Path("/proc/self")


@click.command(help=__doc__, context_settings={"allow_interspersed_args": False})
@click.argument("parent", type=int)
@click.argument("lock", type=int)
@click.argument("memory", type=int)
@click.argument("program", nargs=-1, required=True)
def main(parent: int, lock: int, memory: int, program: tuple[str, ...]) -> None:
    """Give way, then become the program."""
    # To be ended as one; and a terminal's Ctrl-C is not meant for it. Not a session of its own: see ``give_way``.
    os.setpgid(0, 0)
    keep_only(lock)
    give_way()
    bound_memory(memory)
    os.umask(0o077)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGTERM)
    if os.getppid() != parent:  # it died before it could be watched
        sys.exit("whoever started this job is gone")
    os.execv(program[0], program)


def keep_only(lock: int) -> None:
    """Close every file but the standard ones and the lock.

    uvloop lets a child inherit what its parent got from BentoML's: the listening socket and the lock on the home.
    """
    os.closerange(3, lock)
    os.closerange(lock + 1, os.sysconf("SC_OPEN_MAX"))


def bound_memory(limit: int) -> None:
    """Let nothing here hold more memory of its own than this, in bytes; 0 sets no bound.

    It is the last line: what asks for more is told so and fails, and nobody else does.
    """
    if limit:
        # The kernel counts threads' stacks as if they were full.
        most = limit + STACK_BYTES * (os.cpu_count() or 1)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def give_way() -> None:
    """Compute only where nobody else would, and be the first to go when memory is out.

    Linux shares the cores among sessions first (sched_autogroup), and looks at how idle programs are within each only:
    in a session of its own a job keeps its core for its turn. In the service's it is set aside the moment that has
    anything to do: predictions' 99th percentile is 0.96 to 1.00 of what it is without a job, and was 1.11 to 1.16.
    """
    os.nice(19)
    with suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with suppress(OSError):
        (SELF / "oom_score_adj").write_text("1000")


if __name__ == "__main__":
    main()
