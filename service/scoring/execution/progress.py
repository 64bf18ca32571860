"""Report a job's progress to a person, to a scheduler, or to nobody."""

import sys
from time import monotonic
from typing import Any, Protocol

import msgspec

from models.errors import Interrupted


class JobProgress(msgspec.Struct, frozen=True, kw_only=True):
    """Describe how far a job is.

    Attributes:
        rows: Rows of the parts that are done.
        rows_total: Rows of the input; ``None`` until they are counted.
        rows_counted: How many have been counted, until all are.
        errors: Error rows among them.
        first_errors: Why, of the first that were found, for a person.
        rows_per_second: Since this runner's first part was done.
        seconds_left: At this pace; ``None`` while there is none.
    """

    rows: int
    rows_total: int | None
    errors: int
    first_errors: tuple[str, ...] = ()
    rows_counted: int = 0
    rows_per_second: float = 0.0
    seconds_left: float | None = None


class ProgressReporter(Protocol):
    """Whoever wants to know."""

    def tell(self, progress: JobProgress) -> None:
        """Report what is known now."""
        ...


class NoProgress:
    """Nobody wants to know."""

    def tell(self, progress: JobProgress) -> None:
        """Nothing."""


class ProgressBar:
    """A bar for a person; shown where standard error is a terminal.

    Attributes:
        first_errors: Why rows are error rows, of the first of them.
    """

    def __init__(self) -> None:
        from tqdm import tqdm

        self.first_errors: tuple[str, ...] = ()
        self._bar: Any = tqdm(unit=" rows", smoothing=0.1, disable=None, dynamic_ncols=True, unit_scale=True)

    def tell(self, progress: JobProgress) -> None:
        """The bar as it is now."""
        self.first_errors = progress.first_errors
        self._bar.total = progress.rows_total
        if progress.rows_total is None:
            self._bar.set_description_str(f"counted {progress.rows_counted} rows")
            return
        if not self._bar.n and progress.rows:
            # What an earlier runner did is no pace of this one.
            self._bar.initial = progress.rows
        self._bar.set_description_str("scoring")
        self._bar.set_postfix_str(f"{progress.errors} errors", refresh=False)
        self._bar.update(progress.rows - self._bar.n)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()


class ProgressLines:
    """One JSON object per line on standard error, at most this often."""

    def __init__(self, every_seconds: float = 0.5) -> None:
        self._every, self._last = every_seconds, float("-inf")

    def tell(self, progress: JobProgress) -> None:
        """A line, if the last one is old enough."""
        if monotonic() - self._last >= self._every:
            self._last = monotonic()
            # Without the reasons: they quote rows, and this is what schedulers log.
            told = msgspec.structs.asdict(progress)
            del told["first_errors"]
            self.say("progress", **told)

    def say(self, event: str, **more: Any) -> None:
        """A line of another kind."""
        sys.stderr.write(msgspec.json.encode({"event": event, **more}).decode() + "\n")
        sys.stderr.flush()


class Stop:
    """Describe whether somebody asked the job to pause."""

    def __init__(self) -> None:
        self.is_requested = False

    def check(self) -> None:
        """Raise ``Interrupted`` if so."""
        if self.is_requested:
            raise Interrupted("paused")
