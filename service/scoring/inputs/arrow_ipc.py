"""Arrow IPC, the file format and the stream format: parts are made of whole batches, or pieces of one."""

from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import pyarrow as pa

from models.errors import DataError, InputChanged
from service.scoring.inputs.bounds import check_depth
from service.scoring.inputs.interfaces import PartSpec
from service.scoring.inputs.output_types import inner_types
from service.scoring.inputs.storage import Pass
from service.scoring.inputs.table_rows import TableReader, TableRows
from service.scoring.inputs.verified_file import CheckedFile, block_digests, digest_of
from service.scoring.spec import JobSpec

_MAGIC = b"ARROW1\0\0"


class _Piece(NamedTuple):
    """Rows of one batch."""

    batch: int
    start: int
    rows: int


class ArrowSource:
    """An Arrow file or stream."""

    passed_over, notes = 0, ()

    def __init__(self, spec: JobSpec) -> None:
        self._spec, self._pass = spec, Pass(spec.source, "")
        self._file = CheckedFile(spec.source)
        self._is_file = self._file.read(len(_MAGIC)) == _MAGIC
        try:
            self._open()
        except (pa.ArrowException, OSError) as error:
            raise self._torn() from error
        self._columns: pa.Schema = self._opened.schema.remove_metadata()
        check_depth(self._columns, spec.source)
        self._reader = TableReader(spec, self._columns, is_one_dictionary=self._is_file)
        self.schema = self._reader.schema
        kinds = chain.from_iterable(map(inner_types, self._columns.types))
        self._has_dictionary = any(map(pa.types.is_dictionary, kinds))
        self._is_checked = False

    def _torn(self) -> DataError:
        return DataError(self._spec.source, found="no Arrow, or a torn end", expected="a whole Arrow file or stream")

    def _open(self) -> None:
        self._file.seek(0)
        self._opened: Any = pa.ipc.open_file(self._file) if self._is_file else pa.ipc.open_stream(self._file)
        self._next, self._held = 0, (-1, None)

    @property
    def digest(self) -> str:
        """sha256 of the file."""
        return self._pass.digest

    def _batch(self, number: int) -> pa.RecordBatch | None:
        """Return a batch; in a stream one can only go on, or begin again."""
        if self._held[0] == number:
            return self._held[1]
        if self._is_file:
            if number >= self._opened.num_record_batches:
                return None
            self._held = number, self._opened.get_batch(number)
            return self._held[1]
        if number < self._next:
            self._open()
        while self._next <= number:
            try:
                self._held = self._next, self._opened.read_next_batch()
            except StopIteration:
                return None
            self._next += 1
        return self._held[1]

    def cuts(self) -> Iterator[PartSpec]:
        """Parts by rows and by the bytes of each batch's average row."""
        digests = block_digests(self._pass)
        options = self._spec.options
        pieces: list[_Piece] = []
        index = first = rows = size = 0
        for number, batch in enumerate(self._all()):
            start, each = 0, max(1, batch.nbytes // max(1, batch.num_rows))
            while start < batch.num_rows:
                room = min(options.most_rows - rows, max(1, (options.part_bytes - size) // each))
                taken = min(room, batch.num_rows - start)
                pieces.append(_Piece(number, start, taken))
                start, rows, size = start + taken, rows + taken, size + taken * each
                if rows >= options.most_rows or size >= options.part_bytes or taken == room:
                    yield self._cut(index, first, pieces, digests)
                    index, first, rows, size, pieces = index + 1, first + rows, 0, 0, []
        if pieces or not index:
            yield self._cut(index, first, pieces, digests)

    def _all(self) -> Iterator[pa.RecordBatch]:
        self._file.touched = set()
        self._open()
        self._always = self._file.touched  # the schema, and a file's list of batches
        self._touched: dict[int, set[int]] = {}
        number = 0
        while True:
            self._file.touched = set()
            try:
                batch = self._batch(number)
            except MemoryError:
                raise
            except (pa.ArrowException, OSError) as error:
                raise self._torn() from error
            if batch is None:
                return
            self._touched[number] = self._file.touched
            if self._has_dictionary:  # which stands before the first batch that needs it
                self._always |= self._file.touched
            yield batch
            number += 1

    def _cut(self, index: int, first: int, pieces: list[_Piece], digests: list[str]) -> PartSpec:
        numbers = sorted(self._always.union(*(self._touched[piece.batch] for piece in pieces)))
        for old in [batch for batch in self._touched if pieces and batch < pieces[-1].batch]:
            del self._touched[old]
        expected = {str(number): digests[number] for number in numbers}
        location = {"pieces": [[*piece] for piece in pieces], "blocks": expected}
        rows = sum(piece.rows for piece in pieces)
        return PartSpec(index=index, first_row=first, rows=rows, digest=digest_of(expected), place=location)

    def read(self, cut: PartSpec) -> TableRows:
        """Return the rows of a part."""
        self._file.expected = cut.place["blocks"]
        try:
            if not self._is_checked:
                self._open()
                self._is_checked = True
            batches = [self._piece(_Piece(*piece)) for piece in cut.place["pieces"]]
        except MemoryError:
            raise
        except (pa.ArrowException, OSError, InputChanged) as error:
            raise self._file.reason(cut.first_row, cut.rows) from error
        return self._reader.rows(pa.Table.from_batches(batches, self._columns), cut.first_row)

    def _piece(self, piece: _Piece) -> pa.RecordBatch:
        batch = self._batch(piece.batch)
        if batch is None or batch.num_rows < piece.start + piece.rows:
            raise InputChanged("rows are missing")
        return batch.slice(piece.start, piece.rows).replace_schema_metadata()
