"""Row groups of Parquet files put one behind the other without being unpacked.

A part that is a Parquet file of its own was encoded by the worker that scored it; the output is the parts' pages as
they are, and one footer that says where they now lie. Arrow can read and merge footers but not move what they point
to, so the footer's places are changed where they stand: it is Thrift's compact protocol
(https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md), and its fields are those of
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift.
"""

import io
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, BinaryIO, NamedTuple, TypeAlias

MAGIC = b"PAR1"
_TAIL_BYTES = 8
_COPY_BYTES = 2**20
_STOP, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 0, 3, 7, 8, 9, 10, 12
_BOOLS, _INTEGERS = frozenset((1, 2)), frozenset((4, 5, 6))
_LONG_LIST = 15
_MOST_GROUPS_NUMBERED = 2**15 - 1


class ChunkKind(Enum):
    """Describe what a number of the footer is, of those that change."""

    PLACE = "a place in the file"
    NUMBER = "the row group's number"
    ROWS = "how many rows there are"
    GROUPS = "the row groups"
    KEY = "how a column is encrypted"


Shape: TypeAlias = Mapping[int, Any]
_COLUMN: Shape = {9: ChunkKind.PLACE, 10: ChunkKind.PLACE, 11: ChunkKind.PLACE, 14: ChunkKind.PLACE}
_CHUNK: Shape = {2: ChunkKind.PLACE, 3: _COLUMN, 4: ChunkKind.PLACE, 6: ChunkKind.PLACE, 8: ChunkKind.KEY}
_GROUP: Shape = {1: _CHUNK, 5: ChunkKind.PLACE, 7: ChunkKind.NUMBER}
_FILE: Shape = {3: ChunkKind.ROWS, 4: ChunkKind.GROUPS}


class FooterValue(NamedTuple):
    """A number, or the list of row groups, and the bytes of the footer that say it."""

    what: ChunkKind
    start: int
    end: int
    value: int


class _Footer:
    """One walk through the structs of a footer."""

    def __init__(self, content: bytes) -> None:
        self._content, self.place = content, 0
        self.found: list[FooterValue] = []

    def varint(self) -> int:
        """Return an unsigned number."""
        content, offset, value, shift = self._content, self.place, 0, 0
        while (byte := content[offset]) >= 0x80:
            value |= (byte & 0x7F) << shift
            shift, offset = shift + 7, offset + 1
        self.place = offset + 1
        return value | byte << shift

    def integer(self) -> int:
        """Return a signed number."""
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def struct(self, shape: Shape) -> None:
        """Pass a struct; what ``shape`` names is noted."""
        field = 0
        while header := self._content[self.place]:
            self.place += 1
            field = field + (header >> 4) if header >> 4 else self.integer()
            kind, inside = header & 15, shape.get(field)
            if isinstance(inside, ChunkKind):
                self._note(inside, kind)
            elif kind not in _BOOLS:
                self._value(kind, inside or {})
        self.place += 1

    def _note(self, what: ChunkKind, kind: int) -> None:
        start = self.place
        value = 0
        if what is ChunkKind.GROUPS:
            value = self._list(_GROUP)
        elif what is ChunkKind.KEY:
            self._value(kind, {})
        else:
            assert kind in _INTEGERS, "as the format has it"
            value = self.integer()
        self.found.append(FooterValue(what, start, self.place, value))

    def _value(self, kind: int, shape: Shape) -> None:
        if kind in _INTEGERS:
            self.varint()
        elif kind == _BINARY:
            length = self.varint()
            self.place += length
        elif kind == _STRUCT:
            self.struct(shape)
        elif kind in (_LIST, _SET):
            self._list(shape)
        else:
            self.place += {_BYTE: 1, _DOUBLE: 8}[kind]

    def _list(self, shape: Shape) -> int:
        header = self._content[self.place]
        self.place += 1
        count, kind = header >> 4, header & 15
        count = self.varint() if count == _LONG_LIST else count
        for _ in range(count):
            self._value(_BYTE if kind in _BOOLS else kind, shape)
        return count


def has_encrypted_columns(footer: bytes) -> bool:
    """Whether a footer, itself plain, has columns that are not; Arrow ends the process when it is asked about one."""
    walk = _Footer(footer)
    walk.struct(_FILE)
    return any(one.what is ChunkKind.KEY for one in walk.found)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _integer(value: int) -> bytes:
    return _varint(value << 1 if value >= 0 else (-value << 1) - 1)


class RowGroups:
    """Writes a Parquet file made of the row groups of others of one schema.

    Args:
        file: Where it goes, open for writing; stays open.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._place = file.write(MAGIC)
        self._rows = self._count = 0
        self._groups: list[bytes] = []
        self._first: tuple[bytes, FooterValue, FooterValue] | None = None

    def add(self, part: BinaryIO) -> None:
        """All row groups of a file."""
        size = part.seek(0, io.SEEK_END)
        part.seek(size - _TAIL_BYTES)
        footer_bytes = int.from_bytes(part.read(4), "little")
        part.seek(size - _TAIL_BYTES - footer_bytes)
        content = part.read(footer_bytes)
        footer = _Footer(content)
        footer.struct(_FILE)
        # Struct by struct: the list of groups is noted behind the places in it, and so are the rows.
        (groups,) = (one for one in footer.found if one.what is ChunkKind.GROUPS)
        (rows,) = (one for one in footer.found if one.what is ChunkKind.ROWS)
        self._first = self._first or (content, rows, groups)
        self._groups.append(b"".join(self._moved(content, footer.found, groups)))
        self._rows, self._count = self._rows + rows.value, self._count + groups.value
        part.seek(len(MAGIC))
        self._copy(part, size - _TAIL_BYTES - footer_bytes - len(MAGIC))

    def _moved(self, content: bytes, found: list[FooterValue], groups: FooterValue) -> Iterator[bytes]:
        """Yield a part's row groups with the places that they have from now on."""
        moved, number = self._place - len(MAGIC), self._count
        start = groups.start + len(_list_header(content[groups.start] & 15, groups.value))
        for one in found:
            if one.what is ChunkKind.PLACE:
                # Zero says that there is none.
                yield content[start : one.start] + _integer(one.value and one.value + moved)
            elif one.what is ChunkKind.NUMBER:
                # It has two bytes, and may be left out only together with its header.
                yield content[start : one.start] + _integer(min(number, _MOST_GROUPS_NUMBERED))
                number += 1
            else:
                continue
            start = one.end
        yield content[start : groups.end]

    def _copy(self, part: BinaryIO, left: int) -> None:
        while left:
            piece = part.read(min(left, _COPY_BYTES))
            assert piece, "its size was looked at"
            self._file.write(piece)
            self._place, left = self._place + len(piece), left - len(piece)

    def close(self) -> None:
        """Write the footer."""
        assert self._first is not None, "an input has at least one part"
        content, rows, groups = self._first
        footer = b"".join(
            (
                content[: rows.start],
                _integer(self._rows),
                content[rows.end : groups.start],
                _list_header(_STRUCT, self._count),
                *self._groups,
                content[groups.end :],
            )
        )
        self._file.write(footer + len(footer).to_bytes(4, "little") + MAGIC)


def _list_header(kind: int, count: int) -> bytes:
    if count < _LONG_LIST:
        return bytes([count << 4 | kind])
    return bytes([_LONG_LIST << 4 | kind]) + _varint(count)
