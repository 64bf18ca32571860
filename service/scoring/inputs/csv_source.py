"""CSV (RFC 4180): quoted cells may hold line ends; blank lines are no rows; the first row names the columns."""

import codecs
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import PurePosixPath

from models.errors import DataError, MalformedRequest
from models.registry import find_card
from service.scoring.inputs.column_mapping import NUMBER, Field, resolve, with_point
from service.scoring.inputs.csv_rows import Cells, CsvReader, CsvRows
from service.scoring.inputs.document import Document
from service.scoring.inputs.interfaces import PartSpec
from service.scoring.inputs.row_splitting import MAX_ROW_BYTES, RowSplitter
from service.scoring.inputs.storage import Pass, Spans, damage_told, decompressed, open_stored
from service.scoring.inputs.text_encodings import Encoding
from service.scoring.spec import JobSpec

# Excel's own first line, which is no row.
SEPARATOR = re.compile(rb"sep=(.)[\r\n]*")
DELIMITERS = ",;\t|"
# What a tab is called: no shell, and no make, takes one as it is.
TAB = "tab"
NO_HEADER = "--no-header, if the first row is data"


def find_delimiter(spec: JobSpec) -> str:
    """Return what stands between the cells: as asked, as a first line ``sep=;`` says, a tab for ``.tsv``; or nothing.

    Raises:
        DataError: If the input cannot be read.
    """
    if spec.options.delimiter:
        return "\t" if spec.options.delimiter == TAB else spec.options.delimiter
    with open_stored(spec.source) as stored, damage_told(spec.source, spec.compression):
        inside = decompressed(stored, spec.compression) if spec.compression else stored
        said = SEPARATOR.match(inside.read(16).removeprefix(codecs.BOM_UTF8))
    if said is not None:
        return said[1].decode("latin-1")
    return "\t" if ".tsv" in PurePosixPath(spec.source).suffixes else ""


class CsvSource:
    """A CSV file; its spec is complete."""

    passed_over, notes = 0, ()

    def __init__(self, spec: JobSpec) -> None:
        self._spec, self._pass = spec, Pass(spec.source, spec.compression)
        self._spans = Spans(spec.source, spec.compression)
        self._encoding = Encoding(spec.options.encoding, spec.source)
        self._cells = _cells(spec, self._encoding)
        self._quotes = self._cells.quotes
        self._start, rows = self._head()
        names, first = self._names(rows)
        fields = self._fields(names, first, rows)
        self._reader = CsvReader(self._cells, names, fields, Document(spec), spec.output_format)
        self.schema = self._reader.schema

    @property
    def digest(self) -> str:
        """sha256 of the stored bytes."""
        return self._pass.digest

    def _head(self) -> tuple[int, list[bytes]]:
        """Return where the rows begin, and the first two of them, the header among them, in UTF-8."""
        spec = self._spec
        head, start, read = b"", 0, 0
        with open_stored(spec.source) as stored, damage_told(spec.source, spec.compression):
            inside = decompressed(stored, spec.compression) if spec.compression else stored
            ends = self._quotes.ends(head)
            while len(ends) < 3 and read <= 2 * MAX_ROW_BYTES and (block := inside.read(2**16 + len(head))):
                read += len(block)
                if len(ends) and not block.strip(b"\r\n"):
                    continue  # millions of blank lines take some hundred times their size to be told apart
                mark, head = (b"", head + block) if head else self._encoding.without_mark(block)
                start = start or len(mark)
                ends = self._quotes.ends(head)
        borders = [0, *ends.tolist(), len(head)]
        rows = [head[begin:end] for begin, end in pairwise(borders)]
        if SEPARATOR.fullmatch(rows[0]):
            start += len(rows.pop(0))
        if spec.options.has_header is not False:
            start += len(rows[0])
        return start, [self._encoding.to_utf8(row).lstrip(b"\r\n") for row in (*rows, b"")[:2]]

    def _names(self, rows: list[bytes]) -> tuple[list[str], list[str]]:
        """Return the columns' names, and the first row's cells, as many."""
        names = self._parse(rows[0], "the first row")
        if self._spec.options.has_header is False:
            return [f"column_{column}" for column in range(1, len(names) + 1)], names
        self._check(names)
        return names, _as_many(self._cells, rows[1], len(names))

    def _parse(self, row: bytes, what: str) -> list[str]:
        try:
            return self._cells.parse(row)
        except MalformedRequest as error:
            raise DataError(self._spec.source, found=f"{what}: {error}", expected="a row of CSV") from error

    def _check(self, names: Sequence[str]) -> None:
        if not any(names):
            raise DataError(self._spec.source, found="no header", expected="the columns' names in the first line")
        column_numbers = {name: column for column, name in enumerate(names, start=1)}
        twice = [column for column, name in enumerate(names, start=1) if column_numbers[name] != column]
        if twice:
            # Never the name: without a header it is somebody's data.
            found = f"the same name in columns {twice[0]} and {column_numbers[names[twice[0] - 1]]}"
            raise DataError(self._spec.source, found=found, expected=f"each name once; {NO_HEADER}")

    def _fields(self, names: list[str], first: list[str], rows: list[bytes]) -> list[Field]:
        """Return what the columns are to the model.

        Raises:
            DataError: If they are not what it needs, or the first row is no header.
        """
        spec = self._spec
        try:
            fields = _resolved(spec, names, first)
        except DataError as error:
            found = f"nothing that the model reads among the columns ({len(names)})"
            raise DataError(spec.source, found=found, expected=f"{error.expected}; {self._hint(rows)}") from error
        if spec.options.has_header is None and _looks_like_data(names, fields):
            found = "a first row of numbers where names are expected: it looks like data"
            expected = "the columns' names (--no-header, if it is data; --header, if these are names)"
            raise DataError(spec.source, found=found, expected=expected)
        return fields

    def _hint(self, rows: list[bytes]) -> str:
        """Return which option may help."""
        for cells in map(Cells, DELIMITERS):
            try:
                names = cells.parse(rows[0])
                _resolved(self._spec, names, _as_many(cells, rows[1], len(names)))
            except (DataError, MalformedRequest):
                continue
            return f"--delimiter {repr(cells.delimiter) if cells.delimiter.strip() else TAB} finds it"
        if self._spec.options.has_header is False:
            return "without a header, columns are called column_1, column_2 and so on: --column FIELD=column_1"
        return NO_HEADER

    def cuts(self) -> Iterator[PartSpec]:
        """Parts of whole rows.

        Raises:
            DataError: If a row is longer than one may be, or a quote that is never closed swallows the rest.
        """
        skipped, rest, row = self._start, b"", 0
        cutter = RowSplitter(self._spec.options, self._start)
        for block in self._pass.blocks():
            if skipped:
                skipped, block = skipped - min(skipped, len(block)), block[skipped:]
            ends = self._quotes.ends_after(rest, block)
            row += len(ends)
            yield from cutter.add(block, ends)
            rest = block[int(ends[-1]) :] if len(ends) else rest + block
            if len(rest) > MAX_ROW_BYTES:
                what = "(is a quote never closed?)" if rest.strip(b"\r\n") else "of blank lines"
                reason = f"more than {MAX_ROW_BYTES} bytes {what}"
                raise DataError(self._spec.source, row=row + 1, found=reason, expected="shorter rows")
        last = rest.strip(b"\r\n")
        if b"\n" in last and self._quotes.is_open(last):
            expected = "a closing quote: rows cannot be told apart after it"
            raise DataError(self._spec.source, row=row + 1, found="a quote that is never closed", expected=expected)
        yield from cutter.end(is_row=lambda tail: bool(tail.strip(b"\r\n")))

    def read(self, cut: PartSpec) -> CsvRows:
        """Return the rows of a part."""
        data = self._spans.read(cut.place["offset"], cut.place["length"], cut.digest)
        return CsvRows(self._reader, self._encoding.to_utf8(data), cut.rows)


def _cells(spec: JobSpec, encoding: Encoding) -> Cells:
    options = spec.options
    delimiter = options.delimiter or ","
    if len(delimiter.encode()) != 1 or delimiter in '"\r\n':
        expected = f"one ASCII character, or {TAB}"
        raise DataError(spec.source, found=f"the delimiter {delimiter!r}", expected=expected)
    if delimiter == options.decimal:
        found = f"{delimiter!r} between cells and in numbers"
        raise DataError(spec.source, found=found, expected="another --delimiter, or another --decimal")
    return Cells(delimiter, options.decimal, encoding.name)


def _as_many(cells: Cells, row: bytes, wanted: int) -> list[str]:
    """Return a row's cells; nothing where there are none."""
    try:
        found = cells.parse(row)
    except MalformedRequest:
        found = []
    return (found + [""] * wanted)[:wanted]


def _resolved(spec: JobSpec, names: list[str], first: list[str]) -> list[Field]:
    are_numbers = [NUMBER.fullmatch(with_point(cell, spec.options.decimal)) is not None for cell in first]
    return resolve(names, are_numbers, find_card(spec.family, spec.task), spec.options, spec.source)


def _looks_like_data(names: Sequence[str], fields: Sequence[Field]) -> bool:
    """Whether numbers are called by numbers that do not follow on each other, as 0, 1, 2 and 2019, 2020, 2021 do."""
    chosen = [names[column] for field in fields if field.is_vector for column in field.columns]
    if not chosen or not all(map(NUMBER.fullmatch, chosen)):
        return False
    first = int(chosen[0]) if chosen[0].isdecimal() else 0
    return chosen != [str(number) for number in range(first, first + len(chosen))]
