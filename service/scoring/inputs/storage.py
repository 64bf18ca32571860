"""Bytes at an address: a local path, or anything fsspec knows, as it is or decompressed."""

import errno
import gzip
import hashlib
import os
import stat
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

import zstandard

from models.errors import DataError, InputChanged
from service.scoring.addresses import is_local, local_path

BLOCK_BYTES = 2**20
NO_FILE = "a pipe or a device"
# What readers of damaged gzip and zstd files raise.
DAMAGE = (EOFError, zlib.error, zstandard.ZstdError, gzip.BadGzipFile)


def open_stored(address: str) -> Any:
    """Return the bytes at an address, open for reading, at any place.

    Raises:
        DataError: If nothing can be read there.
    """
    try:
        if is_local(address):
            return open_file(local_path(address))
        import fsspec

        return fsspec.open(address, "rb").open()
    except Exception as error:  # the border to file systems: each has errors of its own, many no OSError
        raise unreadable(address, error) from error


def remote_mark(address: str) -> str:
    """Return what the file system of an address says of it: another mark means that its bytes may be others.

    Raises:
        DataError: If it says nothing.
    """
    try:
        import fsspec

        files, path = fsspec.core.url_to_fs(address)
        return str(files.ukey(path))
    except Exception as error:  # as above
        raise unreadable(address, error) from error


def unreadable(address: Path | str, error: Exception) -> DataError:
    """Return the error of an input that cannot be opened."""
    return DataError(address, found=_reason(error), expected="a file or a folder that can be read")


def open_file(path: Path) -> BinaryIO:
    """Return a file of this machine, open for reading.

    Raises:
        OSError: If there is none, or if it is a pipe or a device, which may never say anything, or never end.
    """
    # A pipe would be waited for until somebody writes to it.
    opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(opened).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(opened, "rb")
    os.close(opened)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, NO_FILE, str(path))


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "nothing"
    if isinstance(error, IsADirectoryError):
        return "a folder"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"{type(error).__name__}: {error}"


@contextmanager
def damage_told(address: str, compression: str) -> Iterator[None]:
    """Errors of a decompressor as ours."""
    try:
        yield
    except DAMAGE as error:
        raise DataError(address, found=f"damaged or cut off {compression}", expected="a whole file") from error


def decompressed(stored: IO[bytes], compression: str) -> BinaryIO:
    """Return what is inside a compressed file, read in pieces; all its frames, one after the other."""
    if compression == "gzip":
        return gzip.GzipFile(fileobj=stored, mode="rb")  # type: ignore[return-value]
    reader: Any = _WholeZstd(stored)
    return reader  # type: ignore[no-any-return]


class _WholeZstd:
    """A zstd file that says when it is cut off, which ``stream_reader`` does not."""

    def __init__(self, stored: IO[bytes]) -> None:
        self._stored, self._rest, self._is_inside = stored, b"", False
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._out = bytearray()

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most ``size``; none at the end."""
        while len(self._out) < size and self._more():
            pass
        piece = bytes(self._out[:size])
        del self._out[:size]
        return piece

    def _more(self) -> bool:
        # Little at a time: 16 kB can stand for 500 MB of zeros.
        piece = self._rest or self._stored.read(2**10)
        if not piece:
            if self._is_inside:
                raise EOFError
            return False
        self._out += self._frame.decompress(piece)
        self._is_inside, self._rest = not self._frame.eof, b""
        if self._frame.eof:
            self._rest = self._frame.unused_data
            self._frame = zstandard.ZstdDecompressor().decompressobj()
        return True


class Pass:
    """One pass over an input: its blocks, and then its digest as it is stored.

    Attributes:
        digest: sha256, in hexadecimal, of the stored bytes; empty until the pass has ended.
    """

    def __init__(self, address: str, compression: str) -> None:
        self.address, self.compression, self.digest = address, compression, ""
        self._hash = hashlib.sha256()

    def blocks(self) -> Iterator[bytes]:
        """Yield what is inside, block by block.

        Raises:
            DataError: If it cannot be read to its end.
        """
        with open_stored(self.address) as stored, ThreadPoolExecutor(1) as aside:
            tee = _Hashed(stored, self._hash, aside)
            inside: Any = decompressed(tee, self.compression) if self.compression else tee  # type: ignore[arg-type]
            with damage_told(self.address, self.compression):
                while block := inside.read(BLOCK_BYTES):
                    yield block
            while tee.read(BLOCK_BYTES):
                pass
            tee.settle()
        self.digest = self._hash.hexdigest()


class _Hashed:
    """Reads, and hashes what was read in another thread."""

    def __init__(self, stored: IO[bytes], digest: Any, aside: ThreadPoolExecutor) -> None:
        self._stored, self._digest, self._aside = stored, digest, aside
        self._pending: Future[None] | None = None

    def read(self, size: int = -1) -> bytes:
        block = self._stored.read(size)
        self.settle()
        if block:
            self._pending = self._aside.submit(self._digest.update, block)
        return block

    def settle(self) -> None:
        """Wait until all that was read is hashed."""
        if self._pending is not None:
            self._pending.result()


class Spans:
    """Pieces of an input by offset and length.

    Inside a compressed input one can only go on, or begin again: whoever asks in order reads it once.
    """

    def __init__(self, address: str, compression: str) -> None:
        self._address, self._compression = address, compression
        self._stored: Any = None
        self._inside: Any = None
        self._place = 0

    def read(self, offset: int, length: int, digest: str) -> bytes:
        """Return the bytes of a span.

        Raises:
            InputChanged: If they have another digest now.
        """
        try:
            found = self._read(offset, length)
        except (*DAMAGE, DataError) as error:
            raise InputChanged(f"{self._address}: changed since it was cut into parts") from error
        if len(found) != length or hashlib.sha256(found).hexdigest() != digest:
            raise InputChanged(f"{self._address}: changed since it was cut into parts")
        return found

    def _read(self, offset: int, length: int) -> bytes:
        if not self._compression:
            self._stored = self._stored or open_stored(self._address)
            self._stored.seek(offset)
            return bytes(self._stored.read(length))
        if self._inside is None or offset < self._place:
            self._stored = open_stored(self._address)
            self._inside, self._place = decompressed(self._stored, self._compression), 0
        while self._place < offset:
            skipped = len(self._inside.read(min(BLOCK_BYTES, offset - self._place)))
            if not skipped:
                raise EOFError
            self._place += skipped
        pieces = []
        while length and (piece := self._inside.read(min(BLOCK_BYTES, length))):
            pieces.append(piece)
            self._place, length = self._place + len(piece), length - len(piece)
        return b"".join(pieces)
