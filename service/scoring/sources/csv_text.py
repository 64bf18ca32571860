"""CSV with a header (RFC 4180): quoted cells may hold line ends; blank lines are no rows."""

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from models.errors import DataError, InvalidRequest, MalformedRequest
from models.registry import find_card
from service.scoring.source import Cut
from service.scoring.sources.columns import NUMBER, document, resolve
from service.scoring.sources.cutting import MAX_ROW_BYTES, Cutter
from service.scoring.sources.jsonl import Document
from service.scoring.sources.quotes import Quotes
from service.scoring.spec import Spec
from service.scoring.storage import Pass, Spans, damage_told, decompressed, open_stored

if TYPE_CHECKING:
    import pyarrow as pa

csv.field_size_limit(MAX_ROW_BYTES)


class CsvSource:
    """A CSV file."""

    def __init__(self, spec: Spec) -> None:
        import pyarrow as pa

        self._spec, self.document = spec, Document(spec)
        self._pass = Pass(spec.source, spec.compression)
        self._spans = Spans(spec.source, spec.compression)
        self.delimiter = spec.options.delimiter or ("\t" if ".tsv" in spec.source else ",")
        if len(self.delimiter.encode()) != 1 or self.delimiter in '"\r\n':
            raise DataError(spec.source, found=f"the delimiter {self.delimiter!r}", expected="one ASCII character")
        self._quotes = Quotes(self.delimiter.encode())
        self._start, self.names, first = self._head()
        are_numbers = [NUMBER.fullmatch(cell.strip()) is not None for cell in first]
        card = find_card(spec.family, spec.task)
        self.fields = resolve(self.names, are_numbers, card, spec.options, spec.source)
        # CSV has no types: a cell is text, but where the model reads a number.
        self.numbers = frozenset(place for field in self.fields if field.is_vector for place in field.columns)
        types = [pa.float64() if place in self.numbers else pa.string() for place in range(len(self.names))]
        self.schema = pa.schema([*zip(self.names, types, strict=True)])

    @property
    def digest(self) -> str:
        """sha256 of the stored bytes."""
        return self._pass.digest

    def _head(self) -> tuple[int, list[str], list[str]]:
        """Where the first row begins, the header's names, and the first row's cells."""
        spec = self._spec
        head, start = b"", 0
        with open_stored(spec.source) as stored, damage_told(spec.source, spec.compression):
            inside = decompressed(stored, spec.compression) if spec.compression else stored
            ends = self._quotes.ends(head)
            while len(ends) < 2 and len(head) <= 2 * MAX_ROW_BYTES and (block := inside.read(2**16 + len(head))):
                mark, head = (b"", head + block) if head else _without_mark(block)
                start = start or len(mark)
                ends = self._quotes.ends(head)
        end = int(ends[0]) if len(ends) else len(head)
        names = self._cells(head[:end].lstrip(b"\r\n"), "the header")
        self._check(names)
        first = head[end : int(ends[1]) if len(ends) > 1 else len(head)].lstrip(b"\r\n")
        try:
            cells = self._cells(first, "the first row")
        except DataError:
            cells = []
        return start + end, names, (cells + [""] * len(names))[: len(names)]

    def _cells(self, row: bytes, what: str) -> list[str]:
        try:
            return self.parse(row)
        except MalformedRequest as error:
            raise DataError(self._spec.source, found=f"{what}: {error}", expected="a row of CSV") from error

    def _check(self, names: Sequence[str]) -> None:
        if not any(names):
            raise DataError(self._spec.source, found="no header", expected="the columns' names in the first line")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DataError(self._spec.source, found=f"two columns {twice[0]!r}", expected="each name once")

    def parse(self, row: bytes) -> list[str]:
        """The cells of one row.

        Raises:
            MalformedRequest: If it is no row of CSV in UTF-8.
        """
        text = row.removesuffix(b"\n").removesuffix(b"\r")
        if b"\0" in text:
            raise MalformedRequest("the row holds a NUL byte")
        try:
            if b'"' not in text and b"\r" not in text:
                return text.decode().split(self.delimiter) if text else []
            cells = next(csv.reader([text.decode()], delimiter=self.delimiter, strict=False), [])
        except UnicodeDecodeError as error:
            raise MalformedRequest("the row is not UTF-8") from error
        except csv.Error as error:
            raise MalformedRequest("the row holds a carriage return outside of quotes") from error
        if self._quotes.is_open(text):
            raise MalformedRequest("a quote is never closed")
        return cells

    def cuts(self) -> Iterator[Cut]:
        """Parts of whole rows.

        Raises:
            DataError: If a row is longer than one may be, or a quote that is never closed swallows the rest.
        """
        skipped, rest, row = self._start, b"", 0
        cutter = Cutter(self._spec.options, self._start)
        for block in self._pass.blocks():
            chunk = rest + block[min(skipped, len(block)) :]
            skipped -= min(skipped, len(block))
            ends = self._quotes.ends(chunk)
            end = int(ends[-1]) if len(ends) else 0
            row += len(ends)
            yield from cutter.add(chunk[:end], ends)
            rest = chunk[end:]
            if len(rest) > MAX_ROW_BYTES:
                reason = f"more than {MAX_ROW_BYTES} bytes (is a quote never closed?)"
                raise DataError(self._spec.source, row=row + 1, found=reason, expected="shorter rows")
        last = rest.strip(b"\r\n")
        if b"\n" in last and self._quotes.is_open(last):
            expected = "a closing quote: rows cannot be told apart after it"
            raise DataError(self._spec.source, row=row + 1, found="a quote that is never closed", expected=expected)
        yield from cutter.add(rest, self._quotes.ends(b""))
        yield from cutter.end(is_row=lambda tail: bool(tail.strip(b"\r\n")))

    def read(self, cut: Cut) -> "CsvRows":
        """The rows of a part."""
        data = self._spans.read(cut.place["offset"], cut.place["length"], cut.digest)
        ends = self._quotes.ends(data).tolist()
        rows = [data[start:end].lstrip(b"\r\n") for start, end in zip([0, *ends], ends, strict=False)]
        if len(rows) < cut.rows:
            rows.append(data[ends[-1] if ends else 0 :].lstrip(b"\r\n"))
        return CsvRows(self, rows)


class CsvRows:
    """Rows of text."""

    def __init__(self, source: CsvSource, rows: list[bytes]) -> None:
        self._source, self._rows, self.count = source, rows, len(rows)

    def _parse(self, row: int) -> list[str]:
        cells = self._source.parse(self._rows[row])
        wanted = len(self._source.names)
        if len(cells) != wanted:
            raise MalformedRequest(f"expected {wanted} cells, found {len(cells)}")
        return cells

    def instance(self, row: int) -> Any:
        """What the cells ask."""
        return self._source.document.read(document(self._source.fields, self._parse(row)))

    def _shown(self, row: int) -> list[str | None]:
        """The cells of a row, whatever it is like: cut or filled up to the header."""
        text = self._rows[row].decode(errors="replace").rstrip("\r\n")
        cells: list[str | None]
        try:
            cells = [*next(csv.reader([text], delimiter=self._source.delimiter), [])]
        except csv.Error:
            cells = [*text.split(self._source.delimiter)]
        wanted = len(self._source.names)
        return (cells + [None] * wanted)[:wanted]

    def table(self) -> "pa.Table":
        """Every column: text, but numbers where the model reads them."""
        import pyarrow as pa

        source = self._source
        columns: list[list[Any]] = [[] for _ in source.names]
        for row in range(self.count):
            for column, cell in zip(columns, self._shown(row), strict=True):
                column.append(cell)
        for place in source.numbers:
            columns[place] = [_as_number(cell) for cell in columns[place]]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, source.schema, strict=True)]
        return pa.table(arrays, schema=source.schema)

    def lines(self) -> list[bytes] | None:
        """The rows as they are; one with too few or too many cells, or with none that can be read, filled or cut."""
        return [self._line(row) for row in range(self.count)]

    def _line(self, row: int) -> bytes:
        try:
            self._parse(row)
        except (MalformedRequest, InvalidRequest):
            text = io.StringIO()
            csv.writer(text, delimiter=self._source.delimiter).writerow(self._shown(row))
            return text.getvalue().removesuffix("\r\n").encode()
        return self._rows[row].removesuffix(b"\n").removesuffix(b"\r")


def _without_mark(text: bytes) -> tuple[bytes, bytes]:
    """A text's byte order mark, and the rest of it."""
    start = len(codecs.BOM_UTF8) if text.startswith(codecs.BOM_UTF8) else 0
    return text[:start], text[start:]


def _as_number(cell: str | None) -> float | None:
    if cell is None or NUMBER.fullmatch(cell.strip(" \t")) is None:
        return None
    return float(cell)
