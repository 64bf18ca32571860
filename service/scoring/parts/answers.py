"""The answers of one part: an object for each row, or arrays for many."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.card import Array
from service.scoring.inputs.interfaces import RowError
from service.scoring.parts.word_batches import WordLists


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Describe what each row got.

    Attributes:
        count: How many rows.
        single: The prediction, or the error, of rows that were read one by one.
        places: Of each row, where it stands in ``many``; -1 if it does not.
        many: The predictions' fields, each with its rows as the first axis.
        lists: In their place, the predictions of rows of words.
    """

    count: int
    single: Mapping[int, Any]
    places: NDArray[np.int64] | None = None
    many: Mapping[str, Array] | None = None
    lists: WordLists | None = None

    @property
    def errors(self) -> int:
        """Return how many rows have no prediction."""
        return sum(isinstance(answer, RowError) for answer in self.single.values())

    def first_errors(self, most: int) -> list[tuple[int, RowError]]:
        """Return the first rows without a prediction, and why."""
        found = ((row, answer) for row, answer in sorted(self.single.items()) if isinstance(answer, RowError))
        return [*islice(found, most)]

    def __iter__(self) -> Iterator[Any]:
        if self.lists is None:
            return (self._answer(row) for row in range(self.count))
        return (self.single.get(row, found) for row, found in enumerate(self.lists.predictions()))

    def _answer(self, row: int) -> Any:
        if self.many is None or self.places is None or row in self.single:
            return self.single[row]
        index = self.places[row]
        return {name: values[index] for name, values in self.many.items()}

    @property
    def are_many(self) -> bool:
        """Return whether no row was read by itself."""
        return self.many is not None and not self.single
