"""The output's columns: those of the input, the prediction's, and those that say what is wrong with a row."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from models.card import Array
from models.runtime.predictor import Predictor
from service.scoring.inputs.interfaces import RowError
from service.scoring.parts.answers import Answers

PREFIX = "prediction_"
WHOLE = "prediction"
ERRORS = ("error_code", "error_reason", "error_place")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputColumns:
    """Names and types of the output's columns.

    Attributes:
        carried: The input's columns, in order.
        fields: The prediction's fields, each with its column.
        whole: What a JSON line calls the prediction, which stands there in one piece.
        errors: The columns of a row's error.
    """

    carried: pa.Schema
    fields: dict[str, pa.Field]
    whole: str
    errors: tuple[str, ...]

    @property
    def schema(self) -> pa.Schema:
        """Of a table."""
        texts = [pa.field(name, pa.string()) for name in self.errors]
        return pa.schema([*self.carried, *self.fields.values(), *texts])

    def results(self, answers: Answers) -> list[pa.Array]:
        """Return the columns that are not the input's, of a part's answers."""
        if answers.are_many and answers.many is not None:
            columns = [_lists(answers.many[name], field.type) for name, field in self.fields.items()]
            return [*columns, *(pa.nulls(answers.count, pa.string()) for _ in self.errors)]
        if answers.lists is not None:
            columns = [answers.lists.column(name, field.type) for name, field in self.fields.items()]
        else:
            good = [None if isinstance(answer, RowError) else answer for answer in answers]
            columns = [_column([one and one[name] for one in good], field.type) for name, field in self.fields.items()]
        if not answers.single:
            return [*columns, *(pa.nulls(answers.count, pa.string()) for _ in self.errors)]
        alone = (answers.single.get(row) for row in range(answers.count))
        bad = [answer if isinstance(answer, RowError) else None for answer in alone]
        columns.append(pa.array([one and one.code for one in bad], pa.string()))
        columns.append(pa.array([one and one.reason for one in bad], pa.string()))
        columns.append(pa.array([(one and one.place) or None for one in bad], pa.string()))
        return columns


def make_layout(predictor: Predictor, carried: pa.Schema, taken: Sequence[str] = ()) -> OutputColumns:
    """Return the output of a model, for an input with some columns.

    Args:
        predictor: Its answer to the card's example shows the types.
        carried: The input's columns.
        taken: Further names that a JSON line has.
    """
    (answer,) = predictor.predict([predictor.card.example(predictor.assets)])
    used = {*carried.names, *taken}
    fields = {name: pa.field(_free(name, used), arrow_type(value)) for name, value in answer.items()}
    return OutputColumns(
        carried=carried,
        fields=fields,
        whole=_free(WHOLE, used),
        errors=tuple(_free(name, used) for name in ERRORS),
    )


def _free(name: str, used: set[str]) -> str:
    while name in used:
        name = PREFIX + name
    used.add(name)
    return name


def arrow_type(value: Any) -> pa.DataType:
    """Return the column that holds a value of a prediction, and others like it."""
    if isinstance(value, np.ndarray):
        kind = pa.from_numpy_dtype(value.dtype)
        for _ in range(value.ndim):
            kind = pa.list_(kind)
        return kind
    if isinstance(value, np.generic):
        return pa.from_numpy_dtype(value.dtype)
    if isinstance(value, list):
        return pa.list_(arrow_type(value[0]))
    return pa.array([value]).type


def _lists(values: Array, kind: pa.DataType) -> pa.Array:
    """Rows of an array as numbers, or as lists of as many numbers each."""
    if values.ndim == 1:
        return pa.array(values, kind)
    rows, length = values.shape
    offsets = np.arange(0, (rows + 1) * length, length, dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, np.ascontiguousarray(values).ravel(), type=kind)


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Return one value per row, ``None`` where there is none."""
    if not pa.types.is_list(kind):
        return pa.array(values, kind)
    # Arrow takes a list of lists value by value, at three times the price of their values end to end.
    present = [value for value in values if value is not None]
    is_missing = np.array([value is None for value in values], bool)
    lengths = np.zeros(len(values), np.int32)
    lengths[~is_missing] = [len(value) for value in present]
    offsets = np.concatenate([np.zeros(1, np.int32), lengths.cumsum(dtype=np.int32)])
    inner = _end_to_end(present, kind.value_type)
    return pa.ListArray.from_arrays(offsets, inner, kind, mask=pa.array(is_missing) if is_missing.any() else None)


def _end_to_end(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Return the elements of lists, or of arrays, as one column."""
    if values and all(isinstance(value, np.ndarray) and value.ndim == 1 for value in values):
        return pa.array(np.concatenate(values), kind)
    return _column([*chain.from_iterable(values)], kind)
