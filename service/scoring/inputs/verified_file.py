"""A file read at any place, each block of it held against the digest it had when the job was cut."""

import hashlib
import io
from collections.abc import Iterable, Mapping
from typing import Any

from models.errors import DataError, InputChanged
from service.scoring.inputs.storage import BLOCK_BYTES, Pass, open_stored


def block_digests(source: Pass) -> list[str]:
    """Return the sha256 of each ``BLOCK_BYTES`` of an input, by one pass over it."""
    return [hashlib.sha256(block).hexdigest() for block in _even(source.blocks())]


def _even(pieces: Iterable[bytes]) -> Iterable[bytes]:
    """Yield the same bytes in pieces of one size, but for the last."""
    held = b""
    for piece in pieces:
        held += piece
        while len(held) >= BLOCK_BYTES:
            yield held[:BLOCK_BYTES]
            held = held[BLOCK_BYTES:]
    if held:
        yield held


class CheckedFile(io.RawIOBase):
    """A stored file.

    Attributes:
        expected: The digests of the blocks that matter now, by their number as text; others are not looked at.
        touched: Numbers of the blocks read so far; whoever wants to know empties it first.
    """

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address, self._stored = address, open_stored(address)
        self._place, self._held = 0, (-1, b"", "")
        self._size: int = self._stored.seek(0, io.SEEK_END)
        self.expected: Mapping[str, str] = {}
        self.touched: set[int] = set()

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go there."""
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes.

        Raises:
            InputChanged: If a block is not what it was.
        """
        end = self._size if size is None or size < 0 else min(self._size, self._place + size)
        pieces = []
        while self._place < end:
            number, start = divmod(self._place, BLOCK_BYTES)
            piece = self._block(number)[start : start + end - self._place]
            if not piece:
                raise self._changed()
            pieces.append(piece)
            self._place += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readinto(self, buffer: Any) -> int:
        """Return the next bytes, into a buffer."""
        piece = self.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def _block(self, number: int) -> bytes:
        self.touched.add(number)
        held, block, digest = self._held
        if held != number:
            self._stored.seek(number * BLOCK_BYTES)
            block, digest = self._stored.read(BLOCK_BYTES), ""
        expected = self.expected.get(str(number))
        if expected is not None:
            digest = digest or hashlib.sha256(block).hexdigest()
            if digest != expected:
                raise self._changed()
        self._held = number, block, digest
        return block

    def reason(self, first_row: int, rows: int) -> InputChanged | DataError:
        """Why some rows could not be read: their blocks changed, or they are what they were and never were right."""
        self._held = (-1, b"", "")
        try:
            for number in self.expected:
                self._block(int(number))
        except (InputChanged, OSError):
            return self._changed()
        found = f"damaged data in rows {first_row + 1} to {first_row + rows}"
        return DataError(self._address, found=found, expected="a whole file")

    def _changed(self) -> InputChanged:
        return InputChanged(f"{self._address}: changed since it was cut into parts")

    def close(self) -> None:
        """Close what is read from."""
        self._stored.close()
        super().close()


def digest_of(expected: Mapping[str, str]) -> str:
    """Return one digest for some blocks."""
    return hashlib.sha256("\n".join(f"{number} {one}" for number, one in sorted(expected.items())).encode()).hexdigest()


def blocks_between(start: int, end: int) -> range:
    """Numbers of the blocks that hold the bytes from ``start`` to before ``end``."""
    return range(start // BLOCK_BYTES, -(-end // BLOCK_BYTES))
