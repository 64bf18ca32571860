"""Bound the unpacked size of a table's rows by lengths and offsets, before anything is unpacked.

A file of a kilobyte can hold a list of 200 million zeros, or one text of a megabyte for 400,000 rows: Arrow keeps a
dictionary, a run or a view once, however many rows refer to it.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.errors import DataError
from service.scoring.inputs.row_splitting import MAX_ROW_BYTES as MAX_ROW_BYTES
from service.scoring.spec import InputOptions

# Of each value, whatever its type: what a number or a place takes.
VALUE_BYTES = 8
# Rows of a part, unpacked; in Python and as text they take some times as much.
MAX_PART_BYTES = 64 * 2**20
# How deep lists and structs may lie in each other.
MAX_DEPTH = 32
# The bytes of each row, or of every row.
Sizes: TypeAlias = NDArray[np.int64] | int


def row_bytes(table: "pa.Table | pa.RecordBatch") -> NDArray[np.int64]:
    """Return how many bytes each row takes unpacked, ``(rows,)``; offsets have been checked."""
    total = np.zeros(table.num_rows, np.int64)
    for kind, column in zip(table.schema.types, table.columns, strict=True):
        width = _width(kind)
        total += column_bytes(column) if width is None else width
    return total


def column_bytes(column: "pa.ChunkedArray | pa.Array") -> NDArray[np.int64]:
    """Return the same of one column's cells."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    found = [np.broadcast_to(_sizes(chunk), len(chunk)) for chunk in chunks]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def most_part_bytes(options: InputOptions) -> int:
    """Return how many bytes the rows of a part may take unpacked: whoever asks for larger parts gets them."""
    return max(MAX_PART_BYTES, 4 * options.part_bytes)


def check_part(found: int, most: int, address: str, rows: range) -> None:
    """Let rows pass that may be unpacked together.

    Raises:
        DataError: If they take more than ``most`` bytes.
    """
    if found > most:
        fitting = max(1, len(rows) * most // (2 * found))
        raise DataError(
            address,
            found=f"rows {rows.start + 1} to {rows.stop} that unpack to {found} bytes or more",
            expected=f"at most {most} in a part (--part-rows {fitting})",
        )


def bounded(table: pa.Table, options: InputOptions, address: str, first_row: int) -> tuple[pa.Table, list[int]]:
    """Return a table with nothing in the cells that make a row too large to be read, and which rows those are.

    Raises:
        DataError: If the rest takes more than the rows of a part may, or nothing can stand in such a column.
    """
    rows, sizes = range(first_row, first_row + table.num_rows), row_bytes(table)
    large = np.flatnonzero(sizes > MAX_ROW_BYTES)
    if len(large):
        try:
            table = _emptied(table, large)
        except pa.ArrowException as error:
            found = f"a row above {MAX_ROW_BYTES} bytes in rows {rows.start + 1} to {rows.stop}"
            raise DataError(address, found=found, expected="smaller ones") from error
        sizes = row_bytes(table)
    check_part(int(sizes.sum()), most_part_bytes(options), address, rows)
    return table, large.tolist()


def _emptied(table: pa.Table, large: NDArray[np.int64]) -> pa.Table:
    for index, column in enumerate(table.columns):
        cells = column_bytes(column)
        emptied = [row for row in large.tolist() if cells[row] > MAX_ROW_BYTES // table.num_columns]
        if emptied:
            kept: list[int | None] = [*range(table.num_rows)]
            for row in emptied:
                kept[row] = None
            field = table.schema.field(index)
            if not field.nullable:
                raise pa.ArrowInvalid("a column that may not be empty")
            table = table.set_column(index, field, column.take(pa.array(kept, pa.int64())))
    return table


def check_depth(schema: pa.Schema, address: str) -> None:
    """Let pass what is not nested without end.

    Raises:
        DataError: Naming the column.
    """
    for field in schema:
        kinds = [field.type]
        for _ in range(MAX_DEPTH):
            kinds = [kind.field(index).type for kind in map(_visible, kinds) for index in range(kind.num_fields)]
        if kinds:
            found = f"lists and structs nested deeper than {MAX_DEPTH} in the column {field.name[:40]!r}"
            raise DataError(address, found=found, expected="flatter ones")


def _visible(kind: Any) -> Any:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _sizes(array: Any) -> Sizes:
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _sizes(array.storage)
    for is_kind, measure in _MEASURES:
        if is_kind(kind):
            return measure(array)
    return _width(kind) or VALUE_BYTES


@cache
def _width(kind: pa.DataType) -> int | None:
    """Return what a value takes of a type whose values all take as much; of others nothing is said."""
    if isinstance(kind, pa.BaseExtensionType) or any(is_kind(kind) for is_kind, _ in _MEASURES):
        return None
    try:
        return max(VALUE_BYTES, int(kind.byte_width))
    except ValueError:  # bits, and nulls
        return VALUE_BYTES


def _of_text(array: Any) -> Sizes:
    import pyarrow.compute as pc

    lengths: NDArray[np.int64] = pc.binary_length(array).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return lengths + VALUE_BYTES


def _of_views(array: Any) -> Sizes:
    """Read the lengths that views begin with (Arrow's columnar format, variable-size binary view layout)."""
    views = np.frombuffer(array.buffers()[1], np.int32).reshape(-1, 4)
    return views[array.offset : array.offset + len(array), 0].astype(np.int64) + VALUE_BYTES


def _of_lists(array: Any) -> Sizes:
    offsets = array.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
    return _between(offsets[:-1], offsets[1:], _sizes(array.values))


def _of_list_views(array: Any) -> Sizes:
    starts = array.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
    return _between(starts, starts + array.sizes.to_numpy(zero_copy_only=False), _sizes(array.values))


def _of_fixed_lists(array: Any) -> Sizes:
    length, values = int(array.type.list_size), _sizes(array.values)
    if isinstance(values, int):
        return length * values + VALUE_BYTES
    starts = (np.arange(len(array), dtype=np.int64) + array.offset) * length
    return _between(starts, starts + length, values)


def _between(starts: NDArray[np.int64], ends: NDArray[np.int64], values: Sizes) -> Sizes:
    """Return what lists take that hold the values from ``starts`` to before ``ends``."""
    if isinstance(values, int):
        return (ends - starts) * values + VALUE_BYTES
    total = np.concatenate([np.zeros(1, np.int64), np.cumsum(values)])
    found: NDArray[np.int64] = total[ends] - total[starts] + VALUE_BYTES
    return found


def _of_structs(array: Any) -> Sizes:
    return sum((_sizes(field) for field in array.flatten()), start=VALUE_BYTES)


def _of_dictionary(array: Any) -> Sizes:
    values = _sizes(array.dictionary)
    if isinstance(values, int):
        return values
    indices = array.indices.fill_null(0).to_numpy(zero_copy_only=False)
    return values[indices] if len(values) else np.zeros(len(array), np.int64)


def _of_runs(array: Any) -> Sizes:
    values = _sizes(array.values)
    if isinstance(values, int):
        return values
    rows = np.arange(len(array), dtype=np.int64) + array.offset
    found: NDArray[np.int64] = values[np.searchsorted(array.run_ends.to_numpy(), rows, side="right")]
    return found


def _of_unions(array: Any) -> Sizes:
    """As if every row had the largest value of all: such columns are rare, and travel nowhere but to Arrow."""
    fields = [_sizes(array.field(index)) for index in range(array.type.num_fields)]
    return VALUE_BYTES + max((int(np.max(one, initial=0)) for one in fields), default=0)


def _is_any(*checks: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda kind: any(check(kind) for check in checks)


_TYPES = pa.types
_MEASURES: tuple[tuple[Callable[[Any], bool], Callable[[Any], Sizes]], ...] = (
    (_is_any(_TYPES.is_string, _TYPES.is_large_string, _TYPES.is_binary, _TYPES.is_large_binary), _of_text),
    (_is_any(_TYPES.is_string_view, _TYPES.is_binary_view), _of_views),
    (_is_any(_TYPES.is_list, _TYPES.is_large_list, _TYPES.is_map), _of_lists),
    (_is_any(_TYPES.is_list_view, _TYPES.is_large_list_view), _of_list_views),
    (_TYPES.is_fixed_size_list, _of_fixed_lists),
    (_TYPES.is_struct, _of_structs),
    (_TYPES.is_dictionary, _of_dictionary),
    (_TYPES.is_run_end_encoded, _of_runs),
    (_TYPES.is_union, _of_unions),
)
