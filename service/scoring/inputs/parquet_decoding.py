"""Decode a Parquet file in bounded memory, by what its footer says of each column."""

from typing import Any, NamedTuple

import pyarrow as pa

from models.errors import DataError
from service.scoring.inputs.bounds import MAX_PART_BYTES, VALUE_BYTES
from service.scoring.inputs.row_splitting import MAX_ROW_BYTES

# Rows decoded at once; fewer where rows are large, and not fewer than some where they only may be.
BATCH_ROWS, FEW_ROWS = 1024, 64
_TEXTS = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())
# Encodings in which a value takes as many bytes as it has.
_LITERAL = frozenset({"PLAIN", "RLE", "BIT_PACKED", "DELTA_LENGTH_BYTE_ARRAY"})


class Decoding(NamedTuple):
    """Describe how to decode a file.

    Attributes:
        batch_rows: Rows at once.
        dictionaries: Columns of text of which each value is held once, however many rows have it.
    """

    batch_rows: int
    dictionaries: list[str]


def plan_decoding(metadata: Any, schema: pa.Schema, address: str) -> Decoding:
    """Look at every column of every row group.

    Raises:
        DataError: If rows are larger than any may be.
    """
    batch_rows, dictionaries = BATCH_ROWS, set[str]()
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for index in range(group.num_columns):
            column = group.column(index)
            mean, most = _bytes_of_a_row(column, max(1, group.num_rows))
            if mean > MAX_ROW_BYTES:
                found = f"rows of {mean:.0f} bytes in row group {number}, column {column.path_in_schema[:40]!r}"
                raise DataError(address, found=found, expected=f"rows of at most {MAX_ROW_BYTES} bytes")
            batch_rows = min(batch_rows, max(1, int(MAX_PART_BYTES // max(1.0, mean))))
            if most * BATCH_ROWS > MAX_PART_BYTES:
                if _may_stay_dictionary(column, schema):
                    dictionaries.add(column.path_in_schema)
                else:
                    batch_rows = min(batch_rows, max(FEW_ROWS, MAX_PART_BYTES // most))
    return Decoding(batch_rows, sorted(dictionaries))


def _bytes_of_a_row(column: Any, rows: int) -> tuple[float, int]:
    """How many bytes one column of a row takes on average, and, where a value may be told once for many rows, at most.

    A value told once is at most as long as all that is told.
    """
    mean = column.num_values * VALUE_BYTES / rows
    if column.physical_type != "BYTE_ARRAY":
        return mean, 0
    is_literal = _LITERAL.issuperset(column.encodings)
    return mean + column.total_uncompressed_size / rows, 0 if is_literal else column.total_uncompressed_size


def _may_stay_dictionary(column: Any, schema: pa.Schema) -> bool:
    """Whether Arrow reads the column as a dictionary: not what tells a value by how it differs from the one before."""
    name = column.path_in_schema
    is_known = not any(encoding.startswith("DELTA") for encoding in column.encodings)
    return is_known and name in schema.names and schema.field(name).type in _TEXTS
