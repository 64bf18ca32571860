"""Rows of a table with types: Parquet and Arrow."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.errors import BodyTooLarge, DataError, HttpError, MalformedRequest
from models.registry import find_card
from service.scoring.inputs.bounds import MAX_ROW_BYTES, bounded
from service.scoring.inputs.column_mapping import Field, document, resolve
from service.scoring.inputs.document import Document
from service.scoring.inputs.output_types import as_output, output_schema
from service.scoring.inputs.table_validation import check
from service.scoring.outputs.rendering import exact_values
from service.scoring.spec import JobSpec

if TYPE_CHECKING:
    import pyarrow as pa

    from service.scoring.inputs.word_columns import Words


class TableReader:
    """Describe how the rows of tables of one schema become instances.

    Args:
        spec: The job.
        schema: The tables'.
        is_one_dictionary: Whether each dictionary holds for all of the input.

    Attributes:
        schema: The columns as the output has them.
    """

    def __init__(self, spec: JobSpec, schema: "pa.Schema", *, is_one_dictionary: bool = False) -> None:
        check_names(spec, schema)
        self.schema = output_schema(spec, schema, is_one_dictionary=is_one_dictionary)
        are_numbers = [_is_number(kind) or _may_be_number(kind) for kind in schema.types]
        card = find_card(spec.family, spec.task)
        self.fields: list[Field] = resolve(schema.names, are_numbers, card, spec.options, spec.source)
        self.document, self._address, self._options = Document(spec), spec.source, spec.options

    def rows(self, table: "pa.Table", first_row: int) -> "TableRows":
        """Return the rows of a piece.

        Raises:
            DataError: If it is damaged, or takes too much unpacked.
        """
        table, unreadable = check(table, self._address, first_row)
        table, large = bounded(table, self._options, self._address, first_row)
        faults: dict[int, HttpError] = {row: MalformedRequest(reason) for row, reason in unreadable.items()}
        faults |= dict.fromkeys(large, BodyTooLarge(f"the row is larger than {MAX_ROW_BYTES} bytes"))
        return TableRows(self, table, faults)


def check_names(spec: JobSpec, schema: "pa.Schema") -> None:
    """Two columns of one name cannot be told apart."""
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise DataError(spec.source, found=f"two columns {twice[0]!r}", expected="each name once")


class TableRows:
    """A piece of a table."""

    def __init__(self, reader: TableReader, table: "pa.Table", faults: Mapping[int, HttpError]) -> None:
        self._reader, self._table, self.count, self._faults = reader, table, table.num_rows, faults
        self._columns: dict[int, list[Any]] = {}

    def _cells(self, column_index: int) -> list[Any]:
        if column_index not in self._columns:
            self._columns[column_index] = exact_values(self._table.column(column_index))
        return self._columns[column_index]

    def instance(self, row: int) -> Any:
        """Return what the row's cells ask."""
        if row in self._faults:
            raise self._faults[row]
        cells = {
            column_index: self._cells(column_index)[row]
            for field in self._reader.fields
            for column_index in field.columns
        }
        return self._reader.document.read(document(self._reader.fields, cells))

    def numbers(self, field: str) -> "NDArray[np.float64] | None":
        """Columns of whole or floating numbers, or one of lists that are equally long."""
        (found, *others) = self._reader.fields
        if others or found.name != field:
            return None
        numbers = self._numbers(found)
        if numbers is not None and self._faults:
            numbers = numbers.copy()
            numbers[[*self._faults]] = np.nan
        return numbers

    def _numbers(self, found: Field) -> "NDArray[np.float64] | None":
        if not found.is_vector:
            return _lists(self._table.column(found.columns[0]))
        return stack([self._table.column(column_index) for column_index in found.columns])

    def words(self, field: str) -> "Words | None":
        """Return one column of lists of text."""
        from service.scoring.inputs.word_columns import in_lists

        (found, *others) = self._reader.fields
        if others or found.is_vector or found.name != field:
            return None
        words = in_lists(self._table.column(found.columns[0]))
        if words is not None and self._faults:
            is_good = np.ones(self.count, bool)
            is_good[[*self._faults]] = False
            words = words.only(is_good)
        return words

    def table(self) -> "pa.Table":
        """Return all of it, as it travels."""
        return as_output(self._table, self._reader.schema)

    def lines(self) -> list[bytes] | None:
        """None: these are no lines."""
        return None


def stack(columns: Sequence["pa.ChunkedArray"]) -> "NDArray[np.float64] | None":
    """Columns of numbers side by side, ``(rows, columns)``; a missing one is NaN."""
    numbers = np.empty((len(columns), len(columns[0])))
    # Column by column in memory: what reads some rows of them turns them around more quickly than writing does.
    for column_index, column in enumerate(columns):
        values = _floats(column.combine_chunks() if column.num_chunks != 1 else column.chunk(0))
        if values is None:
            return None
        numbers[column_index] = values.to_numpy(zero_copy_only=False)
    return numbers.T


def _floats(values: "pa.Array") -> "pa.Array | None":
    """Numbers as float64, if every one of them is exactly what it is when it is read by itself."""
    import pyarrow as pa

    if pa.types.is_decimal(values.type):
        try:
            values = values.cast(pa.int64())
        except pa.ArrowInvalid:
            return None
    return values.cast(pa.float64(), safe=False) if _is_number(values.type) else None


def _is_number(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_float64(kind) or pa.types.is_float32(kind))


def _may_be_number(kind: "pa.DataType") -> bool:
    """Return whether a column holds numbers, of which each may have to be read by itself."""
    import pyarrow as pa

    return bool(pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _lists(column: "pa.ChunkedArray") -> "NDArray[np.float64] | None":
    import pyarrow as pa

    is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    if not is_list or not len(column):
        return None
    lists = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    lengths = np.diff(lists.offsets.to_numpy())
    if lists.null_count or lengths.min() != lengths.max() or not lengths[0]:
        return None
    values = _floats(lists.flatten())
    if values is None:
        return None
    numbers: NDArray[np.float64] = values.to_numpy(zero_copy_only=False).reshape(len(lists), -1)
    return numbers
