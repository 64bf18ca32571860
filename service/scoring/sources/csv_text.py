"""CSV with a header (RFC 4180): quoted cells may hold line ends; blank lines are no rows."""

import codecs
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from models.errors import DataError, MalformedRequest
from models.registry import find_card
from service.scoring.source import Cut
from service.scoring.sources.columns import NUMBER, resolve
from service.scoring.sources.csv_rows import Cells, CsvReader, CsvRows
from service.scoring.sources.cutting import MAX_ROW_BYTES, Cutter
from service.scoring.sources.jsonl import Document
from service.scoring.spec import Spec
from service.scoring.storage import Pass, Spans, damage_told, decompressed, open_stored


class CsvSource:
    """A CSV file."""

    passed_over = 0

    def __init__(self, spec: Spec) -> None:
        self._spec, self._pass = spec, Pass(spec.source, spec.compression)
        self._spans = Spans(spec.source, spec.compression)
        delimiter = spec.options.delimiter or ("\t" if ".tsv" in PurePosixPath(spec.source).suffixes else ",")
        if len(delimiter.encode()) != 1 or delimiter in '"\r\n':
            raise DataError(spec.source, found=f"the delimiter {delimiter!r}", expected="one ASCII character")
        self._cells = Cells(delimiter)
        self._quotes = self._cells.quotes
        self._start, names, first = self._head()
        are_numbers = [NUMBER.fullmatch(cell.strip()) is not None for cell in first]
        fields = resolve(names, are_numbers, find_card(spec.family, spec.task), spec.options, spec.source)
        self._reader = CsvReader(self._cells, names, fields, Document(spec))
        self.schema = self._reader.schema

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
        names = self._parse(head[:end].lstrip(b"\r\n"), "the header")
        self._check(names)
        first = head[end : int(ends[1]) if len(ends) > 1 else len(head)].lstrip(b"\r\n")
        try:
            cells = self._parse(first, "the first row")
        except DataError:
            cells = []
        return start + end, names, (cells + [""] * len(names))[: len(names)]

    def _parse(self, row: bytes, what: str) -> list[str]:
        try:
            return self._cells.parse(row)
        except MalformedRequest as error:
            raise DataError(self._spec.source, found=f"{what}: {error}", expected="a row of CSV") from error

    def _check(self, names: Sequence[str]) -> None:
        if not any(names):
            raise DataError(self._spec.source, found="no header", expected="the columns' names in the first line")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DataError(self._spec.source, found=f"two columns {twice[0]!r}", expected="each name once")

    def cuts(self) -> Iterator[Cut]:
        """Parts of whole rows.

        Raises:
            DataError: If a row is longer than one may be, or a quote that is never closed swallows the rest.
        """
        skipped, rest, row = self._start, b"", 0
        cutter = Cutter(self._spec.options, self._start)
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

    def read(self, cut: Cut) -> CsvRows:
        """The rows of a part."""
        data = self._spans.read(cut.place["offset"], cut.place["length"], cut.digest)
        return CsvRows(self._reader, data, cut.rows)


def _without_mark(text: bytes) -> tuple[bytes, bytes]:
    """A text's byte order mark, and the rest of it."""
    start = len(codecs.BOM_UTF8) if text.startswith(codecs.BOM_UTF8) else 0
    return text[:start], text[start:]
