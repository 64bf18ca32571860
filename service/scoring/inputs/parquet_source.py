"""Parquet: parts are rows, whatever the row groups."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from models.errors import DataError, InputChanged
from service.scoring.inputs.bounds import check_depth, check_part, most_part_bytes, row_bytes
from service.scoring.inputs.interfaces import PartSpec
from service.scoring.inputs.parquet_decoding import Decoding, plan_decoding
from service.scoring.inputs.storage import BLOCK_BYTES, Pass
from service.scoring.inputs.table_rows import TableReader, TableRows
from service.scoring.inputs.verified_file import CheckedFile, block_digests, blocks_between, digest_of
from service.scoring.outputs.parquet_concat import has_encrypted_columns
from service.scoring.spec import JobSpec

# The footer's length and the mark; another mark, if the footer is encrypted.
_TAIL_BYTES, _ENCRYPTED = 8, b"PARE"


class ParquetSource:
    """A Parquet file."""

    passed_over, notes = 0, ()

    def __init__(self, spec: JobSpec) -> None:
        self._spec, self._pass = spec, Pass(spec.source, "")
        self._file = CheckedFile(spec.source)
        try:
            self._parquet = self._open()
        except (pa.ArrowException, OSError) as error:
            if self._end(len(_ENCRYPTED)) == _ENCRYPTED:
                raise self._encrypted() from error
            raise DataError(spec.source, found="no Parquet, or a torn end", expected="a whole Parquet file") from error
        self._columns: pa.Schema = self._parquet.schema_arrow.remove_metadata()
        check_depth(self._columns, spec.source)
        self._reader = TableReader(spec, self._columns)
        self.schema = self._reader.schema
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._rest: pa.RecordBatch | None = None
        self._row = -1

    def _open(self, dictionaries: Sequence[str] = ()) -> pq.ParquetFile:
        self._file.seek(0)
        # Pages are read as they are needed, column by column, never a whole row group.
        return pq.ParquetFile(self._file, buffer_size=BLOCK_BYTES, pre_buffer=False, read_dictionary=[*dictionaries])

    @cached_property
    def _decoding(self) -> Decoding:
        footer_bytes = int.from_bytes(self._end(_TAIL_BYTES)[:4], "little")
        if has_encrypted_columns(self._end(footer_bytes + _TAIL_BYTES)):
            raise self._encrypted()
        return plan_decoding(self._parquet.metadata, self._columns, self._spec.source)

    def _end(self, size: int) -> bytes:
        """Return the file's last bytes."""
        self._file.seek(max(0, self._file.seek(0, 2) - size))
        return self._file.read(size)

    def _encrypted(self) -> DataError:
        expected = "one that is not: decrypt it first, no keys are taken"
        return DataError(self._spec.source, found="an encrypted Parquet file", expected=expected)

    @property
    def digest(self) -> str:
        """sha256 of the file."""
        return self._pass.digest

    def cuts(self) -> Iterator[PartSpec]:
        """Parts of equally many rows, by the file's average row.

        Raises:
            DataError: If columns are encrypted, or rows larger than any may be.
        """
        assert self._decoding, "what cannot be decoded is refused first of all"
        digests = block_digests(self._pass)
        meta, options = self._parquet.metadata, self._spec.options
        groups = [meta.row_group(number) for number in range(meta.num_row_groups)]
        size = sum(group.total_byte_size for group in groups)
        rows = max(1, min(options.most_rows, options.part_bytes * meta.num_rows // max(1, size)))
        firsts, total = [], 0
        for group in groups:
            firsts.append(total)
            total += group.num_rows
        tail = blocks_between(max(0, self._file.seek(0, 2) - meta.serialized_size - _TAIL_BYTES), self._file.tell())
        for index, first in enumerate(range(0, max(1, total), rows)):
            last = min(first + rows, total)
            own = groups[max(0, bisect_right(firsts, first) - 1) : bisect_right(firsts, last - 1)]
            numbers = {*tail, *(number for group in own for number in _blocks_of(group))}
            expected = {str(number): digests[number] for number in sorted(numbers)}
            location = {"blocks": expected}
            yield PartSpec(index=index, first_row=first, rows=last - first, digest=digest_of(expected), place=location)

    def read(self, cut: PartSpec) -> TableRows:
        """Return the rows of a part; asked for in order, the file is decoded once."""
        self._file.expected = cut.place["blocks"]
        try:
            pieces = self._pieces(cut)
        except MemoryError:
            raise
        except (pa.ArrowException, OSError, InputChanged) as error:
            raise self._file.reason(cut.first_row, cut.rows) from error
        return self._reader.rows(pa.Table.from_batches(pieces, self._columns), cut.first_row)

    def _pieces(self, cut: PartSpec) -> list[pa.RecordBatch]:
        """The rows of a part, if all of them may be unpacked together."""
        pieces, size, rows = [], 0, range(cut.first_row, cut.first_row + cut.rows)
        for piece in self._take(cut.first_row, cut.rows):
            size += int(row_bytes(piece).sum())
            check_part(size, most_part_bytes(self._spec.options), self._spec.source, rows)
            pieces.append(piece.cast(self._columns) if self._decoding.dictionaries else piece)
        return pieces

    def _take(self, first: int, rows: int) -> Iterator[pa.RecordBatch]:
        if self._row < 0 or first < self._row:
            self._begin(first)
        while rows:
            batch = self._rest if self._rest is not None else next(self._batches, None)
            if batch is None:
                raise InputChanged("rows are missing")
            skipped = min(first - self._row, batch.num_rows)
            taken = min(rows, batch.num_rows - skipped)
            if taken:
                yield batch.slice(skipped, taken).replace_schema_metadata()
            self._rest = batch.slice(skipped + taken) if skipped + taken < batch.num_rows else None
            self._row, first, rows = self._row + skipped + taken, first + taken, rows - taken

    def _begin(self, first: int) -> None:
        """Go to the row group with a row."""
        self._parquet = self._open(self._decoding.dictionaries)
        meta, group, self._row = self._parquet.metadata, 0, 0
        while group < meta.num_row_groups and self._row + meta.row_group(group).num_rows <= first:
            self._row += meta.row_group(group).num_rows
            group += 1
        numbers = [*range(group, meta.num_row_groups)]
        self._batches = self._parquet.iter_batches(self._decoding.batch_rows, row_groups=numbers, use_threads=False)
        self._rest = None


def _blocks_of(group: Any) -> Iterator[int]:
    for number in range(group.num_columns):
        column = group.column(number)
        starts = [column.data_page_offset, column.dictionary_page_offset]
        start = min(one for one in starts if one is not None and one > 0)
        yield from blocks_between(start, start + column.total_compressed_size)
