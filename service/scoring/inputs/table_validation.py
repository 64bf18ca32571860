"""Tables whose bytes are not what their format promises: nothing is read where it is not, and rows at fault are named.

Arrow believes a file: a place outside of a buffer is read (another's memory, or the process ends), and text need not be
UTF-8. Parquet writers do not look at the text either.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from models.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa


def check(table: "pa.Table", address: str, first_row: int) -> tuple["pa.Table", Mapping[int, str]]:
    """Return the table with text that can be shown, and why which of its rows must not be scored.

    Args:
        table: As it was read.
        address: Of the input, for errors.
        first_row: The number of its first row in the input.

    Raises:
        DataError: If something else than plain text is damaged.
    """
    import pyarrow as pa

    faults: dict[int, str] = {}
    for index, name in enumerate(table.column_names):
        try:
            table.column(index).validate(full=True)
        except pa.ArrowInvalid as error:
            try:
                column, wrong = _readable(table.column(index))
            except pa.ArrowInvalid:
                rows = f"rows {first_row + 1} to {first_row + table.num_rows}"
                found = f"damaged data in {rows}, column {name!r}"
                raise DataError(address, found=found, expected="a whole file") from error
            table = table.set_column(index, table.schema.field(index), column)
            faults |= {row: f"column {name!r} is not UTF-8" for row in wrong if row not in faults}
    return table, faults


def _readable(column: "pa.ChunkedArray") -> tuple["pa.ChunkedArray", list[int]]:
    """Return a column of text with a sign in the place of what is no UTF-8, and the rows where it is.

    Raises:
        ArrowInvalid: If that is not what is wrong.
    """
    import pyarrow as pa

    as_bytes = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}.get(column.type)
    if as_bytes is None:
        raise pa.ArrowInvalid("no plain text")
    texts: list[str | None] = []
    wrong: list[int] = []
    for chunk in column.chunks:
        cells = chunk.view(as_bytes)
        cells.validate(full=True)
        for cell in cells.to_pylist():
            try:
                texts.append(None if cell is None else cell.decode())
            except UnicodeDecodeError:
                wrong.append(len(texts))
                texts.append(cell.decode(errors="replace"))
    return pa.chunked_array([pa.array(texts, column.type)], column.type), wrong
