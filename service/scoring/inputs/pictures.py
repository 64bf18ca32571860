"""Rows that are files: pictures in a folder or an archive. A row's column is the file's name."""

import os
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from models.card import AnyCard
from models.errors import BodyTooLarge, DataError, HttpError, printable
from models.picture_names import is_picture
from models.registry import find_card
from service.scoring.inputs.column_mapping import Kind, kinds
from service.scoring.inputs.row_splitting import MAX_ROW_BYTES
from service.scoring.spec import JobSpec

NAME = "name"
SCHEMA = pa.schema([(NAME, pa.string())])


class FileReader:
    """Describe how a file becomes an instance."""

    def __init__(self, spec: JobSpec) -> None:
        self.card: AnyCard = find_card(spec.family, spec.task)
        fields = [name for name, (kind, _, _) in kinds(self.card).items() if kind is Kind.FILE]
        if not fields:
            found = f"a folder or archive of files ({spec.input_format})"
            raise DataError(spec.source, found=found, expected=f"one file: {spec.model} reads no pictures")
        self.field = fields[0]

    def rows(self, names: Sequence[str], contents: Sequence[bytes | HttpError]) -> "FileRows":
        """Return the rows of some files."""
        return FileRows(self, names, contents)


class FileRows:
    """Files in memory; an error stands for one that cannot be read."""

    def __init__(self, reader: FileReader, names: Sequence[str], contents: Sequence[bytes | HttpError]) -> None:
        self._reader, self._names, self._contents = reader, names, contents
        self.count = len(names)

    def instance(self, row: int) -> Any:
        """Return the file."""
        content = self._contents[row]
        if isinstance(content, HttpError):
            raise content
        return self._reader.card.instance(**{self._reader.field: content})

    def numbers(self, field: str) -> None:
        """None: these are read one by one."""

    def words(self, field: str) -> None:
        """None: these have no lists of words, or are read one by one."""

    def table(self) -> pa.Table:
        """Return the files' names."""
        names = [printable(name) for name in self._names]
        return pa.table([pa.array(names, pa.string())], schema=SCHEMA)

    def lines(self) -> list[bytes] | None:
        """None: these are no lines."""
        return None


def pictures_of(names: Iterable[str]) -> tuple[list[str], int]:
    """Return the names of pictures, sorted, and how many others there are."""
    everything = [*names]
    found = sorted(filter(is_picture, everything))
    return found, len(everything) - len(found)


def nothing_to_read(spec: JobSpec, passed_over: int) -> DataError:
    """Return the error of a folder or an archive without a picture."""
    found = f"no PNG, JPEG or WebP file ({passed_over} others or hidden)" if passed_over else "no file"
    return DataError(spec.source, found=found, expected="some, by their names' endings")


def to_json(name: str) -> Any:
    """A file's name for JSON, which cannot hold what is not UTF-8: that stands there as the bytes in hexadecimal."""
    return name if printable(name) == name else [os.fsencode(name).hex()]


def from_json(name: Any) -> str:
    """Return the name again."""
    return name if isinstance(name, str) else os.fsdecode(bytes.fromhex(name[0]))


def too_large() -> BodyTooLarge:
    """Return the error of a file that is never read."""
    return BodyTooLarge(f"the file is larger than {MAX_ROW_BYTES} bytes")
