"""One runner at a time works on a job.

``flock`` belongs to the open file and ends with the process, however it ends; a runner that is stopped keeps it for as
long as it stands. So there is no lease that could expire under a stopped runner, and no second writer to be fenced off
unless somebody removes the lock file itself; that is noticed before every commit (``confirm``).
"""

import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

from models.errors import JobHeld

# Whoever only asks who holds it, holds it for an instant.
PATIENCE_SECONDS, PAUSE_SECONDS = 0.5, 0.02


class Lock:
    """An exclusive lock on a file.

    Raises:
        JobHeld: If another process has it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened = self._acquire()
        # For people; on a full disk it stays empty.
        with suppress(OSError):
            os.ftruncate(self._opened, 0)
            os.pwrite(self._opened, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)

    def _acquire(self) -> int:
        until = monotonic() + PATIENCE_SECONDS
        while True:
            opened = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The runner before may have removed the file between the opening and the locking.
                if _is_same(opened, self._path):
                    return opened
            except BlockingIOError:
                if monotonic() > until:
                    os.close(opened)
                    raise JobHeld(f"another runner has this job: {_read(self._path)}") from None
                sleep(PAUSE_SECONDS)
            except BaseException:
                os.close(opened)
                raise
            os.close(opened)

    def confirm(self) -> None:
        """Raise ``JobHeld`` if the file was removed or replaced: somebody else may have the job by now."""
        if not _is_same(self._opened, self._path):
            raise JobHeld("the lock of this job was taken away; another runner may have it")

    def release(self) -> None:
        """Let the next one have it."""
        os.close(self._opened)


def find_holder(path: Path) -> str | None:
    """Return who holds the lock, for people; ``None`` if nobody does."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(path)
    finally:
        os.close(opened)
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text() or "unknown"
    except OSError:
        return "unknown"


def _is_same(opened: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(opened), path.stat())
    except FileNotFoundError:
        return False
