"""Rows of words through the model as arrays: the micro-batches of rows read one by one, without an object per row."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.card import Array, Prediction
from models.errors import RunnerFailed
from models.runtime.predictor import Predictor, check_finite
from service.scoring.inputs.interfaces import RowError, row_error
from service.scoring.inputs.word_columns import Places, Words


class Vocabulary:
    """The different words of a part.

    Attributes:
        numbers: Of each word in ``values``, which it is.
        words: Each once.
        is_good: Which of them surely are no fault.
    """

    def __init__(self, predictor: Predictor, values: pa.StringArray) -> None:
        self._predictor = predictor
        coded = values.dictionary_encode()
        self.numbers: NDArray[np.int32] = coded.indices.to_numpy()
        self.words: list[str] = coded.dictionary.to_pylist()
        self.is_good: NDArray[np.bool_] = _bulk(predictor).accept(self.words, predictor.assets)

    def encode(self) -> Array:
        """Return what the session is fed of each word; of words at fault, which are in no row that is run, nothing."""
        good = [word for word, is_good in zip(self.words, self.is_good.tolist(), strict=True) if is_good]
        encoded: Array = _bulk(self._predictor).encode(good, self._predictor.assets)
        if len(good) == len(self.words):
            return encoded
        spread = np.zeros((len(self.words), *encoded.shape[1:]), encoded.dtype)
        spread[self.is_good] = encoded
        return spread


@dataclass(frozen=True, slots=True, kw_only=True)
class WordLists:
    """Predictions that are lists of one value per word.

    Attributes:
        fields: Each field's values, row after row.
        ends: Where each row's end, with a 0 in front, ``(rows + 1,)`` int32.
        is_missing: Which rows have no prediction, ``(rows,)``.
    """

    fields: dict[str, pa.Array]
    ends: NDArray[np.int32]
    is_missing: NDArray[np.bool_]

    def column(self, name: str, kind: pa.DataType) -> pa.Array:
        """Return a field as a column."""
        mask = pa.array(self.is_missing) if self.is_missing.any() else None
        return pa.ListArray.from_arrays(self.ends, self.fields[name], kind, mask=mask)

    def predictions(self) -> list[Prediction | None]:
        """Return each row's, as if it had been decoded by itself."""
        columns = {name: _plain(values) for name, values in self.fields.items()}
        ends = self.ends.tolist()
        return [
            None if is_missing else {name: values[start:end] for name, values in columns.items()}
            for start, end, is_missing in zip(ends[:-1], ends[1:], self.is_missing.tolist(), strict=True)
        ]


def _plain(values: pa.Array) -> Any:
    return values.to_pylist() if pa.types.is_string(values.type) else values.to_numpy()


class WordRun:
    """One part's rows of words on their way through the model.

    Args:
        predictor: The model, whose card has verbs for words.
        words: The rows' words; rows that have none read are passed over.
        vocabulary: Of ``words``.

    Attributes:
        errors: The rows that the model failed on.
    """

    def __init__(self, predictor: Predictor, words: Words, vocabulary: Vocabulary) -> None:
        self._predictor, self._words, self._numbers = predictor, words, vocabulary.numbers
        self._encoded = vocabulary.encode()
        self._wanted = predictor.wanted(explain=False)
        self._found: dict[str, Array] = {}
        self.errors: dict[int, RowError] = {}

    def run(self) -> None:
        """Run every row, in micro-batches of rows of like length."""
        bulk, lengths = _bulk(self._predictor), self._words.lengths
        rows = np.flatnonzero(lengths >= 0)
        costs = bulk.costs(lengths[rows])
        order = costs.argsort(kind="stable")
        start = 0
        budget = replace(self._predictor.card.budget, batch=bulk.batch)
        for size in budget.cuts(costs[order].tolist()):
            self._infer(rows[order[start : start + size]])
            start += size

    def _infer(self, rows: Places) -> None:
        """Run some rows together; if the model fails, its halves, and in the end each row by itself."""
        bulk, offsets = _bulk(self._predictor), self._words.places(rows)
        feeds = bulk.feeds(self._encoded.take(self._numbers[offsets], axis=0), self._words.lengths[rows])
        try:
            outputs = self._predictor.run(feeds, self._wanted)
            check_finite(outputs)
        except RunnerFailed as error:
            if len(rows) == 1:
                self.errors[int(rows[0])] = row_error(error)
                return
            middle = len(rows) // 2
            self._infer(rows[:middle])
            self._infer(rows[middle:])
            return
        for name, values in bulk.answers(outputs).items():
            if name not in self._found:
                self._found[name] = np.empty(len(self._numbers), values.dtype)
            self._found[name][offsets] = values

    def lists(self) -> WordLists | None:
        """Return the predictions of all rows, in order; ``None`` if the model failed on every one."""
        if not self._found:
            return None
        words = self._words
        is_missing = words.lengths < 0
        is_missing[[*self.errors]] = True
        rows = np.flatnonzero(~is_missing)
        offsets = words.places(rows)
        bulk = _bulk(self._predictor)
        names = bulk.names(self._predictor.assets)
        fields = {bulk.field: _take(words.values, offsets)}
        for name, values in self._found.items():
            chosen = pa.array(values[offsets])
            fields[name] = pa.array(names[name]).take(chosen) if name in names else chosen
        ends = np.concatenate([np.zeros(1, np.int32), np.where(is_missing, 0, words.lengths).cumsum(dtype=np.int32)])
        return WordLists(fields=fields, ends=ends, is_missing=is_missing)


def _take(values: pa.StringArray, offsets: Places) -> pa.StringArray:
    """Values at places; without a copy where these are all of them in order."""
    if len(offsets) == len(values) and np.array_equal(offsets, np.arange(len(values))):
        return values
    return values.take(pa.array(offsets))


def _bulk(predictor: Predictor) -> Any:
    bulk = predictor.card.word_bulk
    assert bulk is not None, "whoever has words has asked"
    return bulk
