"""Everything a batch job does to a disk: each operation is one method here, so that a test can stop before any of them.

What must last is written under a name nobody reads, synced, renamed, and the folder is synced; SQLite alone writes past
this module, and nothing depends on its last commits (``ledger.py``).
"""

import errno
import hashlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer

# A write for every few rows would cost more calls than the rows do.
BUFFER_BYTES = 1 << 20
# What a full disk says: the disk, the user's quota, the process's own limit on a file.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Disk:
    """The disk as it is."""

    def make_folder(self, folder: Path) -> None:
        """A folder, if there is none."""
        folder.mkdir(exist_ok=True)

    def create(self, path: Path) -> int:
        """Return a descriptor of a new, empty file, to be written."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)

    def write(self, opened: int, content: "Buffer") -> int:
        """Return how many of the bytes were written."""
        return os.write(opened, content)

    def sync(self, opened: int) -> None:
        """The file's bytes outlast a power loss."""
        os.fsync(opened)

    def close(self, opened: int) -> None:
        """Give the descriptor back."""
        os.close(opened)

    def rename(self, source: Path, target: Path) -> None:
        """One name for another, in one step, over what was there."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """The file is gone, if it was there."""
        path.unlink(missing_ok=True)

    def remove_folder(self, folder: Path) -> None:
        """The empty folder is gone."""
        folder.rmdir()

    def sync_folder(self, folder: Path) -> None:
        """Names made or changed in the folder outlast a power loss."""
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


class TemporaryFile(io.RawIOBase):
    """A file on its way, written from its beginning to its end; it knows its own size and sha256."""

    def __init__(self, disk: Disk, path: Path) -> None:
        super().__init__()
        self.size = 0
        self._disk, self._sha256 = disk, hashlib.sha256()
        self._opened: int | None = disk.create(path)

    @property
    def digest(self) -> str:
        """Return the sha256 of what was written, in hex."""
        return self._sha256.hexdigest()

    def writable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Return how many bytes there are."""
        return self.size

    def write(self, content: "Buffer") -> int:
        """Return how many of the bytes were written."""
        assert self._opened is not None, "it is closed"
        view = memoryview(content).cast("B")
        written = self._disk.write(self._opened, view)
        self._sha256.update(view[:written])
        self.size += written
        return written

    def sync(self) -> None:
        """Make what was written last."""
        assert self._opened is not None, "it is closed"
        self._disk.sync(self._opened)

    def close(self) -> None:
        """Give the descriptor back, synced or not."""
        if self._opened is not None:
            opened, self._opened = self._opened, None
            self._disk.close(opened)
        super().close()


class Writer(io.BufferedWriter):
    """An ``TemporaryFile`` with a buffer before it: what parts and outputs are written through."""

    raw: TemporaryFile

    def __init__(self, disk: Disk, path: Path) -> None:
        super().__init__(TemporaryFile(disk, path), BUFFER_BYTES)

    def finish(self) -> tuple[str, int]:
        """Make everything written last, under the name it has now.

        Returns:
            Its sha256 and its size.
        """
        self.flush()
        self.raw.sync()
        self.raw.close()
        return self.raw.digest, self.raw.size

    def abandon(self) -> None:
        """Give the descriptor back and forget what was not written yet."""
        self.raw.close()


def is_full(error: OSError) -> bool:
    """Return whether it says that there is no room."""
    return error.errno in FULL
