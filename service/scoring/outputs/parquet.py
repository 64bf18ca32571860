"""Write Parquet, as a part and as the output."""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from service.scoring.spec import JobSpec

# Readers skip and share out row groups; far smaller ones cost more than they hold: 2,048 sentences take half a
# megabyte, as many rows of 56 numbers a whole one. Parts of at least as many rows are row groups of their own:
# unpacking and packing them again would cost the one who puts them together half of a job on numbers, and 7 us a
# sentence, of which a job on words takes 140.
GROUP_ROWS = 2**11


def are_groups(spec: JobSpec) -> bool:
    """Return whether each part of a job is a Parquet file, whose row group goes into the output as it is."""
    return spec.output_format == "parquet" and spec.options.most_rows >= GROUP_ROWS


class _Writer(pq.ParquetWriter):  # type: ignore[misc]
    """Writes a file that may be abandoned."""

    def __del__(self) -> None:
        """Leave what was not closed as it is: the file below is closed by then, and nobody hears of the error."""


def open_writer(file: Any, schema: pa.Schema) -> Any:
    """Numbers byte by byte of one rank: that takes four fifths of the space, and half of the time."""
    texts, floats = _columns(schema)
    return _Writer(file, schema, compression="snappy", use_dictionary=texts, use_byte_stream_split=floats)


def _columns(schema: pa.Schema) -> tuple[list[str], list[str]]:
    """The columns that are worth a dictionary, which numbers are not, and those of floating numbers, as paths."""
    texts, floats = [], []
    for field in schema:
        path, kind = field.name, field.type
        while pa.types.is_list(kind):
            path, kind = f"{path}.list.{kind.value_field.name}", kind.value_type
        if pa.types.is_float32(kind) or pa.types.is_float64(kind):  # DuckDB reads no halves that are split
            floats.append(path)
        elif pa.types.is_string(kind):
            texts.append(path)
    return texts, floats
