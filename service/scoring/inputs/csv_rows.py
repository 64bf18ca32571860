"""The rows of a part of CSV: read all at once by Arrow where nothing is strange about them, else one by one."""

import codecs
import csv
import io
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv as arrow_csv

from models.errors import MalformedRequest
from models.payload.json_payload import to_json
from service.scoring.inputs.column_mapping import NUMBER, Field, document, with_point
from service.scoring.inputs.csv_boundaries import QuoteCounter
from service.scoring.inputs.document import Document
from service.scoring.inputs.row_splitting import MAX_ROW_BYTES
from service.scoring.inputs.table_rows import stack

csv.field_size_limit(MAX_ROW_BYTES)


class Cells:
    """Reads the cells of single rows."""

    def __init__(self, delimiter: str, decimal: str = ".", encoding: str = "UTF-8") -> None:
        self.delimiter, self.quotes = delimiter, QuoteCounter(delimiter.encode())
        self.decimal, self._encoding = decimal, encoding

    def parse(self, row: bytes) -> list[str]:
        """Return the cells of one row.

        Raises:
            MalformedRequest: If it is no row of CSV, or it was not in the encoding.
        """
        text = row.removesuffix(b"\n").removesuffix(b"\r")
        if b"\0" in text:
            raise MalformedRequest("the row holds a NUL byte")
        try:
            if b'"' not in text and b"\r" not in text:
                return text.decode().split(self.delimiter) if text else []
            cells = next(csv.reader([text.decode()], delimiter=self.delimiter, strict=False), [])
        except UnicodeDecodeError as error:
            raise MalformedRequest(f"the row is not {self._encoding} (--encoding, such as cp1252)") from error
        except csv.Error as error:
            raise MalformedRequest("the row holds a carriage return outside of quotes") from error
        if self.quotes.is_open(text):
            raise MalformedRequest("a quote is never closed")
        return cells

    def shown(self, row: bytes, wanted: int) -> list[str | None]:
        """As many cells as are wanted, whatever the row is like."""
        text = row.decode(errors="replace").rstrip("\r\n")
        cells: list[str | None]
        try:
            cells = [*next(csv.reader([text], delimiter=self.delimiter), [])]
        except csv.Error:
            cells = [*text.split(self.delimiter)]
        return (cells + [None] * wanted)[:wanted]


class CsvReader:
    """Describe how the rows of one CSV file become instances and columns.

    Attributes:
        output_format: What they are written to.
        schema: CSV has no types: a column is text, but where the model reads a number.
    """

    def __init__(
        self, cells: Cells, names: Sequence[str], fields: Sequence[Field], document: Document, output_format: str
    ) -> None:
        self.cells, self.names, self.fields, self.document = cells, names, fields, document
        self.output_format = output_format
        self.numbers = sorted({column_index for field in fields if field.is_vector for column_index in field.columns})
        kinds = [pa.string()] * len(names)
        for column_index in self.numbers:
            kinds[column_index] = pa.float64()
        self.schema = pa.schema([*zip(names, kinds, strict=True)])
        self._convert = arrow_csv.ConvertOptions(
            column_types=self.schema,
            null_values=[],
            strings_can_be_null=False,
            quoted_strings_can_be_null=False,
            decimal_point=cells.decimal,
        )
        self._read = {"column_names": [*names], "use_threads": False}

    def at_once(self, text: bytes, rows: int) -> pa.Table | None:
        """Return a whole part as a table; ``None`` if anything about it is strange."""
        if b"\0" in text or not self.cells.quotes.is_plain(text):
            return None
        if b"\r" in text and text.count(b"\r") != text.count(b"\r\n"):
            return None
        if text.startswith(codecs.BOM_UTF8):  # which Arrow would drop, as if each part were a file
            return None
        parse = arrow_csv.ParseOptions(delimiter=self.cells.delimiter, newlines_in_values=b'"' in text)
        read = arrow_csv.ReadOptions(**self._read, block_size=len(text) + 1)
        try:
            table = arrow_csv.read_csv(pa.BufferReader(text), read, parse, self._convert)
        except pa.ArrowException:
            return None
        if table.num_rows != rows:
            return None
        return table


class CsvRows:
    """The rows of one part."""

    def __init__(self, reader: CsvReader, text: bytes, count: int) -> None:
        self._reader, self._text, self.count = reader, text, count

    @cached_property
    def _rows(self) -> list[bytes]:
        text = self._text
        ends = self._reader.cells.quotes.ends(text).tolist()
        rows = [text[start:end].lstrip(b"\r\n") for start, end in zip([0, *ends], ends, strict=False)]
        if len(rows) < self.count:
            rows.append(text[ends[-1] if ends else 0 :].lstrip(b"\r\n"))
        return rows

    def _parse(self, row: int) -> list[str]:
        cells = self._reader.cells.parse(self._rows[row])
        wanted = len(self._reader.names)
        if len(cells) != wanted:
            raise MalformedRequest(f"expected {wanted} cells, found {len(cells)}")
        return cells

    def instance(self, row: int) -> Any:
        """Return what the cells ask."""
        return self._reader.document.read(document(self._reader.fields, self._parse(row), self._reader.cells.decimal))

    @cached_property
    def _at_once(self) -> tuple[pa.Table, NDArray[np.float64]] | None:
        """The table and its numbers, if all of them are finite."""
        table = self._reader.at_once(self._text, self.count) if self.count else None
        if table is None:
            return None
        columns = [table.column(column_index) for column_index in self._reader.numbers]
        numbers = stack(columns) if columns else np.empty((self.count, 0))
        return None if numbers is None or not np.isfinite(numbers).all() else (table, numbers)

    def numbers(self, field: str) -> NDArray[np.float64] | None:
        """Return the columns of the one field."""
        (found, *others) = self._reader.fields
        if others or found.name != field or not found.is_vector or not self.count:
            return None
        if self._at_once is None:
            return np.array([self._cells_of(row, found) for row in range(self.count)]).reshape(self.count, -1)
        numbers = self._at_once[1]
        if [*found.columns] != self._reader.numbers:
            numbers = numbers[:, np.searchsorted(self._reader.numbers, found.columns)]
        # Text read as JSON has no whole number -0, and Arrow's has.
        return np.where(np.signbit(numbers), np.nan, numbers) if np.signbit(numbers).any() else numbers

    def words(self, field: str) -> None:
        """None: these are read one by one."""

    def _cells_of(self, row: int, field: Field) -> list[float]:
        try:
            cells = self._parse(row)
        except MalformedRequest:
            return [math.nan] * len(field.columns)
        found = [self._as_number(cells[column_index]) for column_index in field.columns]
        return [math.nan if one is None or one == 0 > math.copysign(1, one) else one for one in found]

    def table(self) -> pa.Table:
        """Return every column: text, but numbers where the model reads them."""
        if self._at_once is not None:
            return self._at_once[0]
        reader = self._reader
        wanted = len(reader.names)
        rows = [reader.cells.shown(row, wanted) for row in self._rows]
        columns: list[list[Any]] = [[row[column_index] for row in rows] for column_index in range(wanted)]
        for column_index in reader.numbers:
            columns[column_index] = [self._as_number(cell) for cell in columns[column_index]]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, reader.schema, strict=True)]
        return pa.table(arrays, schema=reader.schema)

    def lines(self) -> list[bytes] | None:
        """For CSV, the rows as they are; one with too few or too many cells, or that cannot be read, filled or cut.

        For JSON lines, rows with a cell that the model reads as a number and that is none: it is there as it stood.
        """
        if self._reader.output_format == "csv":
            return [self._line(row) for row in range(self.count)]
        if self._reader.output_format == "jsonl" and self._at_once is None:
            return [self._object(row) for row in range(self.count)]
        return None

    def _object(self, row: int) -> bytes:
        names = self._reader.names
        cells: list[Any] = self._reader.cells.shown(self._rows[row], len(names))
        for column_index in self._reader.numbers:
            number = self._as_number(cells[column_index])
            cells[column_index] = number if number is not None else cells[column_index] or None
        return to_json(dict(zip(names, cells, strict=True)))

    def _line(self, row: int) -> bytes:
        reader = self._reader
        try:
            self._parse(row)
        except MalformedRequest:
            text = io.StringIO()
            shown = reader.cells.shown(self._rows[row], len(reader.names))
            csv.writer(text, delimiter=reader.cells.delimiter).writerow(shown)
            return text.getvalue().removesuffix("\r\n").encode()
        return self._rows[row].removesuffix(b"\n").removesuffix(b"\r")

    def _as_number(self, cell: str | None) -> float | None:
        """Return a cell's number; none if it is no number, or too large for one."""
        text = "" if cell is None else with_point(cell, self._reader.cells.decimal)
        if NUMBER.fullmatch(text) is None:
            return None
        number = float(text)
        return number if math.isfinite(number) else None
