"""Define what a job's execution knows of formats and models: nothing but this.

The mechanics (``job.py``, ``pool.py``, ``ledger.py`` …) cut nothing, read no row and write no format. They are handed
an ``Workload`` and move its parts from one place to the next; the tests hand them another one.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO, Protocol

import msgspec

from service.scoring.inputs.interfaces import PartSpec, RowError

__all__ = [
    "InputSource",
    "OutputAssembly",
    "PartResult",
    "PartScorer",
    "PartSpec",
    "PoisonRow",
    "RowError",
    "ScoredPart",
    "Workload",
]


class PartResult(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A part that was scored and written.

    Attributes:
        number: Which one.
        name: Its file's.
        errors: How many of its rows are error rows.
        digest: sha256 of its file.
        size: The file's, in bytes.
        seconds: How long it took.
        first_errors: Why rows are error rows, of the first of them, for a person.
    """

    number: int
    name: str
    rows: int
    errors: int
    digest: str
    size: int
    seconds: float
    first_errors: tuple[str, ...] = ()


class PoisonRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row that is not run again, because a process that ran it alone ended or stood still, twice."""

    part: int
    row: int
    code: str
    reason: str


class InputSource(Protocol):
    """An input, as far as its parts go."""

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
        """Return one pass over the input; the same input and options give the same cuts."""
        ...


class ScoredPart(Protocol):
    """A part with its predictions."""

    @property
    def rows(self) -> int:
        """Return how many rows."""
        ...

    @property
    def errors(self) -> int:
        """Return how many of them are error rows."""
        ...

    @property
    def first_errors(self) -> tuple[str, ...]:
        """Return why, of the first of them, for a person."""
        ...

    def write(self, file: BinaryIO) -> None:
        """The part's bytes; the same each time."""
        ...


class PartScorer(Protocol):
    """Describe what one worker process opens once."""

    def score(
        self,
        cut: PartSpec,
        *,
        known: Mapping[int, RowError] = ...,
        alone: bool = ...,
        begin: Callable[[int], None] | None = ...,
    ) -> ScoredPart:
        """Return a part's predictions; rows in ``known`` get their error without being run."""
        ...


class OutputAssembly(Protocol):
    """The output, made of its parts."""

    def add(self, part: BinaryIO) -> None:
        """The next part."""
        ...

    def close(self) -> None:
        """That was the last of them."""
        ...


class Workload(Protocol):
    """Describe what a job was asked; it is sent to each worker process."""

    @property
    def spec(self) -> bytes:
        """Return what was asked, as JSON: what is needed to ask it again."""
        ...

    @property
    def identity(self) -> bytes:
        """Return everything of it that decides the output's bytes, but the input's own."""
        ...

    def stack(self) -> dict[str, str]:
        """Versions and machine: with others the bytes may differ."""
        ...

    def mark(self) -> str:
        """Return how the input looks from outside, now: another mark means that its bytes must be looked at again."""
        ...

    def source(self) -> InputSource:
        """Return the input."""
        ...

    def scorer(self) -> PartScorer:
        """Return the model, open."""
        ...

    def assembly(self, file: BinaryIO) -> OutputAssembly:
        """Return the output, to be written to a file."""
        ...
