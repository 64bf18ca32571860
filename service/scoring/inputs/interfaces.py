"""An input as rows: cut into parts once, and each part read whenever it is wanted."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import orjson

from models.errors import Fault, HttpError, JobTooLarge

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from service.scoring.inputs.word_columns import Words

MAX_TOLD = 8


class PartSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Describe where one part of the input is.

    Attributes:
        index: The part's number, from 0.
        first_row: The number of its first row in the input, from 0.
        rows: How many it has. Only the one part of an input without rows has none.
        digest: sha256 of what it is read from.
        place: What the source needs to find it again.
    """

    index: int
    first_row: int
    rows: int
    digest: str
    place: Mapping[str, Any]


class RowError(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Describe why a row has no prediction.

    Attributes:
        code: As of the service's errors.
        reason: For people.
        place: Where in the row: keys and places in lists, as JSON; empty: the row as a whole.
    """

    code: str
    reason: str
    place: str = ""


class Rows(Protocol):
    """The rows of one part."""

    @property
    def count(self) -> int:
        """Return how many."""
        ...

    def instance(self, row: int) -> Any:
        """Return what a row asks, not yet validated beyond its types.

        Raises:
            HttpError: If it asks nothing that can be understood.
        """
        ...

    def numbers(self, field: str) -> "NDArray[np.float64] | None":
        """Return the one field that is read, of all rows, ``(rows, values)``.

        ``None`` if others are read too, or if it has no numbers or not equally many; NaN, or anything that no instance
        may have, in rows that must be read one by one.
        """
        ...

    def words(self, field: str) -> "Words | None":
        """Return the one field that is read, of all rows, where that is a list of words.

        ``None`` if it is not, or if others are read too. What is strange in any way is a row to be read by itself; a
        word may be any UTF-8.
        """
        ...

    def table(self) -> "pa.Table":
        """Return the columns that travel to the output, of the source's ``schema``."""
        ...

    def lines(self) -> list[bytes] | None:
        """Return the rows as the output's format writes them, where the source has them so; else ``None``."""
        ...


class Source(Protocol):
    """An input."""

    @property
    def schema(self) -> "pa.Schema":
        """Return the columns that travel to the output."""
        ...

    @property
    def digest(self) -> str:
        """sha256 of the whole input, once ``cuts`` has ended."""
        ...

    @property
    def passed_over(self) -> int:
        """Return how many files of a folder or an archive are none of its rows, once ``cuts`` has ended."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what else was passed over, put in order or filled in, a line each, once ``cuts`` has ended."""
        ...

    def cuts(self) -> Iterator[PartSpec]:
        """Return one pass over the input in bounded memory; the same input and options give the same cuts.

        Raises:
            DataError: If the input as a whole cannot be understood.
        """
        ...

    def read(self, cut: PartSpec) -> Rows:
        """Return the rows of a part.

        Raises:
            InputChanged: If what is there now is not what was cut.
        """
        ...


def row_error(error: HttpError) -> RowError:
    """Return what the output says of a row that failed."""
    # A row is one instance: it has no list of instances to be located in.
    faults = [Fault(_inner(fault.loc), fault.reason) for fault in error.faults[:MAX_TOLD]]
    if not faults:
        return RowError(code=error.code, reason=str(error))
    json_path = orjson.dumps(list(faults[0].loc)).decode() if faults[0].loc else ""
    return RowError(code=error.code, reason="; ".join(map(str, faults)), place=json_path)


def _inner(loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    return loc[2:] if loc[:1] == ("instances",) else loc


def check_rows(rows: int, most: int | None) -> None:
    """Refuse an input with more rows than it may have; ``None``: any number.

    Raises:
        JobTooLarge: If it has more.
    """
    if most is not None and rows > most:
        raise JobTooLarge(f"the input has more than {most} rows (--max-rows)")
