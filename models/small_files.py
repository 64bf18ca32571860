"""Small files that others write, read without ever waiting for them. Standard library only."""

import errno
import os
import stat
from pathlib import Path


def read_small_file(path: str | Path, most_bytes: int) -> tuple[bytes, os.stat_result]:
    """Read a regular file, and what it was before: what is written meanwhile is seen as a change.

    A pipe in its place would be waited for until somebody writes, a device might never end.

    Raises:
        OSError: If it cannot be opened, is no regular file, or has more than ``most_bytes``.
    """
    with open(path, "rb", opener=_open_at_once) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            kind = "a pipe" if stat.S_ISFIFO(status.st_mode) else "a device"
            raise OSError(errno.EINVAL, f"expected a regular file, found {kind}")
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"expected at most {most_bytes} bytes, found more")
    return content, status


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
