"""Keep the metrics of all processes of a service, and check that there is room.

They are written through mapped files: on a full disk that is SIGBUS, which ends a process without a word, and the one
that takes its place likewise.
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from models.errors import SettingsError
from service.settings.environment import metrics_location
from service.telemetry.logs import format_fatal

MEMORY = Path("/dev/shm")  # noqa: S108  the folder is made for its user alone
# What a process writes with thirty models; with six it is half a megabyte.
ROOM_BYTES = 2 * 2**20
RESERVE = "lectern-reserve"


def metrics_folder(home: Path, processes: int, memory: Path = MEMORY) -> Path | None:
    """Choose a folder in memory for this user's server at this ``BENTOML_HOME``.

    Returns:
        It, or ``None`` where there is no such place, or no room for so many processes there.
    """
    mine = memory / f"lectern-{os.getuid()}"
    try:
        mine.mkdir(mode=0o700, exist_ok=True)
        if mine.is_symlink() or mine.stat().st_uid != os.getuid():
            return None
        if free_bytes(mine) < processes * ROOM_BYTES:
            return None
    except OSError:
        return None
    return mine / hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:16]


def free_bytes(folder: Path) -> int:
    """Return how much can still be written there."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def require_room() -> None:
    """End this process with one line when it has no room for its metrics, not even the reserve."""
    folder = metrics_location()
    if folder is None or not folder.is_dir() or free_bytes(folder) >= ROOM_BYTES:
        return
    (folder / RESERVE).unlink(missing_ok=True)
    if (free := free_bytes(folder)) < ROOM_BYTES:
        reason = f"metrics need {ROOM_BYTES} free bytes in {folder}, found {free}; make room there"
        raise SystemExit(format_fatal(SettingsError(reason)))


def keep_reserve() -> None:
    """Set room aside for the process that will take the place of one that dies when all else is full.

    Twice what it needs where that is there: what the dead one wrote is only given back once it runs.
    """
    folder = metrics_location()
    if folder is None:
        return
    reserve = os.open(folder / RESERVE, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        for size in (2 * ROOM_BYTES, ROOM_BYTES):
            with suppress(OSError):  # there is none; whoever starts next says so
                os.posix_fallocate(reserve, 0, size)
                return
    finally:
        os.close(reserve)
