"""Decide in which type each column of a table travels to the output; refuse a column that cannot, by its name."""

from collections.abc import Iterator
from io import BytesIO

import pyarrow as pa

from models.errors import DataError
from service.scoring.outputs.parquet import open_writer
from service.scoring.outputs.rendering import decoded, json_values
from service.scoring.spec import JobSpec

# What Parquet stores as a dictionary, and gives back as one.
_KEPT_VALUES = (pa.string(), pa.large_string(), pa.binary())
_NAMES = {"jsonl": "JSON lines", "csv": "CSV", "parquet": "Parquet", "arrow": "Arrow"}


def output_schema(spec: JobSpec, schema: pa.Schema, *, is_one_dictionary: bool) -> pa.Schema:
    """Return the columns as the output has them.

    Args:
        spec: The job.
        schema: The input's columns.
        is_one_dictionary: Whether each dictionary holds for all of the input, and not for a piece of it: an Arrow file
            cannot change one.

    Raises:
        DataError: If the output's format has no place for a column's type.
    """
    fields = [_field(spec, field, is_one_dictionary) for field in schema]
    for field in fields:
        try:
            _try(spec, field, is_one_dictionary)
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid, TypeError) as error:
            format_name = _NAMES[spec.output_format]
            raise DataError(
                spec.source,
                found=f"the column {field.name!r} of type {field.type}, for which {format_name} has no place",
                expected="an output in another format (Arrow holds every type), or the input without that column",
            ) from error
    return pa.schema(fields)


def _field(spec: JobSpec, field: pa.Field, is_one_dictionary: bool) -> pa.Field:
    kind = field.type
    is_dictionary = pa.types.is_dictionary(kind)
    if spec.output_format == "parquet":
        is_decoded = pa.types.is_run_end_encoded(kind) or (is_dictionary and kind.value_type not in _KEPT_VALUES)
    else:
        is_decoded = spec.output_format == "arrow" and is_dictionary and not is_one_dictionary
    return field.with_type(decoded(pa.nulls(0, kind)).type) if is_decoded else field


def _try(spec: JobSpec, field: pa.Field, is_one_dictionary: bool) -> None:
    """Write nothing of the type, as the output would be.

    Raises:
        ArrowException: If the format has no place for it.
    """
    nothing = pa.table([pa.nulls(0, field.type)], schema=pa.schema([field]))
    if spec.output_format == "parquet":
        with open_writer(BytesIO(), nothing.schema) as writer:
            writer.write_table(nothing)
    elif spec.output_format != "arrow":
        json_values(nothing.column(0) if nothing.column(0).chunks else pa.chunked_array([pa.nulls(0, field.type)]))
    elif not is_one_dictionary and any(pa.types.is_dictionary(kind) for kind in inner_types(field.type)):
        raise pa.ArrowNotImplementedError("a file has one dictionary for a column, and this input may have many")


def inner_types(kind: pa.DataType) -> Iterator[pa.DataType]:
    """Yield a type and all that it is made of."""
    yield kind
    for index in range(kind.num_fields):
        yield from inner_types(kind.field(index).type)


def as_output(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a piece of the input with the columns that the output has."""
    if table.schema.equals(schema):
        return table
    columns = [
        column if column.type == field.type else pa.chunked_array([*map(decoded, column.chunks)], field.type)
        for column, field in zip(table.columns, schema, strict=True)
    ]
    return pa.table(columns, schema=schema)
