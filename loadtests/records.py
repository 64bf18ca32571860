"""Record every request: four numbers, kept until the end, so that no percentile is an estimate."""

from array import array
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

OK = "ok"


class RecordTable(msgspec.Struct, frozen=True, kw_only=True):
    """Requests in columns.

    Attributes:
        due: When each was to leave, in seconds from the beginning, float64.
        lag: Seconds by which it left late, float32: the client's own fault.
        latency: Seconds from when it was due until its answer was whole, or until it had failed, float32.
        outcome: Its place in ``reasons``.
        model: Which model was asked, by number.
        reasons: ``"ok"`` and every reason of a failure.
    """

    due: NDArray[np.float64]
    lag: NDArray[np.float32]
    latency: NDArray[np.float32]
    outcome: NDArray[np.uint8]
    model: NDArray[np.uint8]
    reasons: list[str]

    def __len__(self) -> int:
        return len(self.due)

    def where(self, chosen: NDArray[np.bool_]) -> "RecordTable":
        """Return some of the requests."""
        columns = {name: getattr(self, name)[chosen] for name in COLUMNS}
        return RecordTable(**columns, reasons=self.reasons)

    @property
    def is_ok(self) -> NDArray[np.bool_]:
        """Return which were answered, and rightly."""
        return np.equal(self.outcome, 0)

    def outcomes(self) -> dict[str, int]:
        """Return how many ended how, those that occur."""
        counts = np.bincount(self.outcome, minlength=len(self.reasons))
        return {reason: int(count) for reason, count in zip(self.reasons, counts, strict=True) if count}


COLUMNS = {"due": "d", "lag": "f", "latency": "f", "outcome": "B", "model": "B"}
_MOST_REASONS = 250


class Records:
    """The requests of one worker, as they end."""

    def __init__(self) -> None:
        self.columns: dict[str, array[Any]] = {name: array(code) for name, code in COLUMNS.items()}
        self.reasons = [OK]

    def add(self, due: float, lag: float, latency: float, outcome: str, model: int) -> None:
        """Note the end of a request."""
        columns = self.columns
        columns["due"].append(due)
        columns["lag"].append(lag)
        columns["latency"].append(latency)
        columns["outcome"].append(0 if outcome == OK else self._number(outcome))
        columns["model"].append(model)

    def _number(self, reason: str) -> int:
        if reason not in self.reasons:
            if len(self.reasons) >= _MOST_REASONS:
                reason = "other"
            if reason not in self.reasons:
                self.reasons.append(reason)
        return self.reasons.index(reason)

    def to_message(self) -> dict[str, Any]:
        """Return everything, as a Locust message carries it."""
        return {"reasons": self.reasons, **{name: column.tobytes() for name, column in self.columns.items()}}


def merge(messages: Iterable[dict[str, Any]]) -> RecordTable:
    """Return the requests of all workers in the order they were due."""
    tables = [_table(message) for message in messages]
    reasons = [OK, *sorted({reason for table in tables for reason in table.reasons} - {OK})]
    outcome = [
        np.array([reasons.index(reason) for reason in table.reasons], np.uint8)[table.outcome] for table in tables
    ]
    columns = {name: np.concatenate([getattr(table, name) for table in tables]) for name in COLUMNS}
    columns["outcome"] = np.concatenate(outcome)
    order = np.argsort(columns["due"], kind="stable")
    return RecordTable(**{name: column[order] for name, column in columns.items()}, reasons=reasons)


def _table(message: dict[str, Any]) -> RecordTable:
    columns = {name: np.frombuffer(message[name], np.dtype(code)) for name, code in COLUMNS.items()}
    return RecordTable(**columns, reasons=message["reasons"])
