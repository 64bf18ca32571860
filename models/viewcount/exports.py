"""Files with daily views as YouTube Studio, Google Analytics, Wikimedia and spreadsheets write them: tables of text."""

import codecs
import csv
import gzip
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from models.errors import DataError

# A thousand years of days; what is larger is something else, and is not held in memory.
MAX_BYTES = 16 * 2**20
# Two years of 500 videos, as YouTube Studio's chart has them.
MAX_ROWS = 400_000
MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
DELIMITERS = (",", ";", "\t", "|")
MEMBERS = frozenset({".csv", ".tsv", ".txt", ".json"})
# Excel's first line, and what Google Analytics 4 says of the days that it counts from 0.
_SEPARATOR = re.compile(r"sep=(.)\s*", re.IGNORECASE)
_START = re.compile(r"#\s*Start date:\s*([0-9]{8})\s*", re.IGNORECASE)


class TableRow(NamedTuple):
    """The cells of a row, and its line in the file."""

    number: int
    cells: list[str]


class RawTable(NamedTuple):
    """One table of a file.

    Attributes:
        place: Which one, as ``--table`` says it: its number from 1, or its file's name in an archive.
        header: The columns' names.
        rows: What follows.
        start: The day that ``Nth day`` counts from, where the file says it.
    """

    place: str
    header: TableRow
    rows: list[TableRow]
    start: date | None = None


def tables(content: bytes, file: str, *, delimiter: str, encoding: str, is_strict: bool = True) -> list[RawTable]:
    """Return the tables in a file: in an archive, after each other, or as JSON.

    Args:
        content: The file's bytes, plain or gzipped.
        file: Its name, for errors.
        delimiter: Between cells; empty: the one that gives most columns.
        encoding: Empty: as the byte order mark says, else UTF-8.
        is_strict: Whether a quote that is never closed is an error; a file's beginning may end anywhere.

    Raises:
        DataError: If it is none of these, or torn.
    """
    content = _unpacked(content, file)
    if not content.startswith(b"PK\x03\x04"):
        return _tables(content, file, delimiter, encoding, is_strict=is_strict)
    found = []
    for name, member in _members(content, file):
        inside = _tables(member, f"{file}, {name}", delimiter, encoding, is_strict=is_strict)
        found += [table._replace(place=name if len(inside) == 1 else f"{name} {table.place}") for table in inside]
    return found


def _unpacked(content: bytes, file: str) -> bytes:
    if content.startswith(b"\x1f\x8b"):
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as inside:
                content = inside.read(MAX_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(file, found="damaged or cut off gzip", expected="a whole file") from error
    if len(content) > MAX_BYTES:
        raise DataError(file, found=f"more than {MAX_BYTES} bytes", expected="one row for each day")
    return content


def _members(content: bytes, file: str) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [name for name in archive.namelist() if not PurePosixPath(name).name.startswith("._")]
            if any(name.startswith("xl/") for name in names):
                raise DataError(file, found="an Excel workbook", expected="its sheet, saved as CSV UTF-8")
            names = [name for name in names if PurePosixPath(name).suffix.lower() in MEMBERS]
            if not names:
                raise DataError(file, found="no table in the archive", expected="one of .csv, .tsv, .txt, .json")
            room = MAX_BYTES
            for name in names:
                with archive.open(name) as member:
                    inside = member.read(room + 1)
                room -= len(inside)
                if room < 0:
                    raise DataError(file, found=f"more than {MAX_BYTES} bytes inside", expected="one row for each day")
                yield name, inside
    # An encrypted member is a RuntimeError, an unknown compression a NotImplementedError.
    except (zipfile.BadZipFile, OSError, EOFError, zlib.error, RuntimeError) as error:
        raise DataError(file, found=f"{error}", expected="a whole zip archive, not encrypted") from error


def _tables(content: bytes, file: str, delimiter: str, encoding: str, *, is_strict: bool) -> list[RawTable]:
    text = _decoded(content, file, encoding)
    if text.lstrip()[:1] in ("{", "["):
        return _from_json(text, file)
    lines = [*io.StringIO(text, newline="")]
    said = _SEPARATOR.fullmatch(lines[0]) if lines else None
    if said is not None:
        lines[0] = "\n"
    delimiter = "\t" if delimiter == "tab" else delimiter or (said[1] if said else _delimiter(lines))
    return _from_csv(lines, file, delimiter, is_strict=is_strict)


def _decoded(content: bytes, file: str, encoding: str) -> str:
    name = encoding or next((name for mark, name in MARKS if content.startswith(mark)), "utf-8")
    try:
        return content.decode(name)
    except LookupError as error:
        raise DataError(file, found=f"--encoding {encoding}", expected="one that Python knows") from error
    except UnicodeError as error:
        expected = "UTF-8, UTF-16 with its mark, or --encoding (Excel's CSV: --encoding cp1252)"
        raise DataError(file, found=f"bytes that are not {name}", expected=expected) from error


def _delimiter(lines: Sequence[str]) -> str:
    """Return the one that parts a line into most cells, of the first line that has any."""
    for line in lines:
        if not line.startswith("#") and line.strip():
            counts = {mark: sum(1 for _ in _cells(line, mark)) for mark in DELIMITERS}
            best = max(counts, key=lambda mark: counts[mark])
            if counts[best] > 1:
                return best
    return DELIMITERS[0]


def _cells(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [])


def _from_csv(lines: Sequence[str], file: str, delimiter: str, *, is_strict: bool) -> list[RawTable]:
    """Tables one after the other: each begins, after a blank line or a comment, with a line of names."""
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise DataError(file, found=f"--delimiter {delimiter!r}", expected="one character, or tab")
    found: list[RawTable] = []
    start, is_apart = None, True
    for number, cells in _records(lines, file, delimiter, is_strict=is_strict):
        if not any(cell.strip() for cell in cells):
            is_apart = True
        elif cells[0].startswith("#"):
            said = _START.match(cells[0])
            start, is_apart = date(int(said[1][:4]), int(said[1][4:6]), int(said[1][6:])) if said else start, True
        elif is_apart and (not found or _are_names(cells)):
            found.append(RawTable(str(len(found) + 1), TableRow(number, cells), [], start))
            is_apart = False
        else:
            found[-1].rows.append(TableRow(number, cells))
            is_apart = False
            _check_count(len(found[-1].rows), file)
    return found


def _check_count(rows: int, file: str) -> None:
    if rows > MAX_ROWS:
        raise DataError(file, found=f"more than {MAX_ROWS} rows", expected="one row for each day")


def _records(lines: Sequence[str], file: str, delimiter: str, *, is_strict: bool) -> Iterator[TableRow]:
    """Rows of CSV with their lines; a comment, which may hold any quotes, is a row of one cell."""
    number = first = 0
    is_inside = False

    def feed() -> Iterator[str]:
        nonlocal number, is_inside
        while number < len(lines):
            if not is_inside and lines[number].startswith("#"):
                return
            number, is_inside = number + 1, True
            yield lines[number - 1]

    try:
        while number < len(lines):
            if lines[number].startswith("#"):
                number += 1
                yield TableRow(number, [lines[number - 1]])
            for cells in csv.reader(feed(), delimiter=delimiter, strict=is_strict):
                yield TableRow(first + 1, cells)
                first, is_inside = number, False
            first = number
    except csv.Error as error:
        raise DataError(file, row=first + 1, found=str(error), expected="a whole row of CSV") from error


def _are_names(cells: Sequence[str]) -> bool:
    """Return whether none of the cells is a number or a date of digits, as one is in every row of days and views."""
    return all(any(letter.isalpha() for letter in cell) for cell in cells if cell.strip())


def _from_json(text: str, file: str) -> list[RawTable]:
    """A list of objects, alone or as ``items``, or an object of days per page, as Wikimedia's Pageviews tool writes."""
    try:
        found: Any = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise DataError(file, found=f"no JSON ({error})", expected="a whole file") from error
    items = found.get("items") if isinstance(found, dict) else found
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        raise DataError(file, found="other JSON", expected="a list of objects, alone or as items")
    _check_count(len(items), file)
    dated = [[key for key in item if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", key)] for item in items]
    if all(dated):
        return [
            RawTable(
                str(index),
                TableRow(index, ["date", str(item.get("page", "views"))]),
                [TableRow(index, [day, _text(item[day])]) for day in days],
            )
            for index, (item, days) in enumerate(zip(items, dated, strict=True), start=1)
        ]
    names = [*dict.fromkeys(key for item in items for key in item)]
    rows = [TableRow(number, [_text(item.get(name)) for name in names]) for number, item in enumerate(items, start=1)]
    return [RawTable("1", TableRow(0, names), rows)]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is given twice")
    return found


def _text(value: Any) -> str:
    return "" if value is None else str(value)
