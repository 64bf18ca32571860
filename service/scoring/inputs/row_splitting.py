"""Text cut into parts at the ends of rows: one pass of numpy over blocks."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.scoring.inputs.interfaces import PartSpec
from service.scoring.spec import InputOptions

Places: TypeAlias = NDArray[np.int64]
# As much as the service reads in one request. A longer row is never held in memory.
MAX_ROW_BYTES = 16 * 2**20
LINE_END = 10


def line_ends(block: bytes) -> Places:
    """Return where lines end in a block: places after each line feed."""
    return np.flatnonzero(np.frombuffer(block, np.uint8) == LINE_END) + 1


class RowSplitter:
    """Collects a text's blocks and yields its parts.

    Args:
        options: How large a part may be.
        start: Where the first row begins: what stands before belongs to no part.
    """

    def __init__(self, options: InputOptions, start: int) -> None:
        self._options = options
        self._index = self._row = self._rows = 0
        self._first = self._place = start
        self._hash: Any = hashlib.sha256()
        self._tail: list[bytes] = []  # since the last row's end
        self._tail_bytes = 0
        self._is_long = False

    def add(self, block: bytes, ends: Places) -> Iterator[PartSpec]:
        """Yield the parts that a block completes.

        Args:
            block: The next bytes.
            ends: Places in the block after each end of a row, ascending.
        """
        view, start, number = memoryview(block), 0, 0
        while number < len(ends):
            taken = 1 if self._is_long else self._fill(start, ends[number:])
            end = int(ends[number + taken - 1])
            self._take(view[start:end], taken)
            start, number = end, number + taken
            if self._is_full():
                yield self._close()
        yield from self._keep(block[start:])

    def _fill(self, start: int, ends: Places) -> int:
        """Return how many of the next rows go into the part that is open."""
        room = self._options.most_rows - self._rows
        missing = self._options.part_bytes - (self._place + self._tail_bytes - self._first)
        by_size = int(np.searchsorted(ends, start + max(1, missing))) + 1
        return max(1, min(len(ends), room, by_size))

    def _take(self, piece: bytes | memoryview, rows: int) -> None:
        for part in self._tail:
            self._hash.update(part)
        self._hash.update(piece)
        self._place += self._tail_bytes + len(piece)
        self._tail, self._tail_bytes = [], 0
        self._rows += rows

    def _is_full(self) -> bool:
        enough = self._rows >= self._options.most_rows or self._place - self._first >= self._options.part_bytes
        return enough or self._is_long

    def _keep(self, rest: bytes) -> Iterator[PartSpec]:
        """Hold the beginning of a row; one that is too long becomes a part of its own, hashed and not held."""
        if rest:
            self._tail.append(rest)
            self._tail_bytes += len(rest)
        if self._is_long:
            self._take(b"", 0)
        elif self._tail_bytes > MAX_ROW_BYTES:
            if self._rows:
                yield self._close(self._place)
            self._is_long = True
            self._take(b"", 0)

    def _close(self, end: int | None = None) -> PartSpec:
        end = self._place if end is None else end
        location = {"offset": self._first, "length": end - self._first}
        if self._is_long:
            location["long"] = 1
        cut = PartSpec(
            index=self._index, first_row=self._row, rows=self._rows, digest=self._hash.hexdigest(), place=location
        )
        self._index, self._row = self._index + 1, self._row + self._rows
        self._rows, self._first, self._hash, self._is_long = 0, end, hashlib.sha256(), False
        return cut

    def end(self, *, is_row: Callable[[bytes], bool] = bool) -> Iterator[PartSpec]:
        """Yield the last part. What follows the last row's end is a row too, unless ``is_row`` says no."""
        if self._is_long:
            self._rows = 1
            yield self._close()
            return
        tail = b"".join(self._tail)
        if tail:
            self._take(b"", int(is_row(tail)))
        if self._rows or not self._index:
            yield self._close()


def long_row(cut: PartSpec) -> bool:
    """Return whether the part is one row that is too long to be read."""
    return "long" in cut.place


Ends: TypeAlias = Callable[[bytes], Places]
