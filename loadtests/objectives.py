"""Read the service's objectives: one file, which alerts, load tests, capacity and MLPerf all use."""

import tomllib
from collections.abc import Iterable
from pathlib import Path

import msgspec

from loadtests.task import Objective
from models.paths import REPOSITORY

OBJECTIVES = REPOSITORY / "monitoring" / "objectives.toml"


class _OwnObjective(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Describe what a single model has instead."""

    p99_ms: float | None = None
    error_share: float | None = None


class Promise(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The objective of every model, and what single ones have instead."""

    p99_ms: float
    error_share: float
    models: dict[str, _OwnObjective] = {}

    def of(self, models: Iterable[str]) -> Objective:
        """Return the objective of a load on some models: the slowest of theirs."""
        own = [self.models.get(model, _OwnObjective()) for model in models] or [_OwnObjective()]
        return Objective(
            p99_ms=max(self.p99_ms if one.p99_ms is None else one.p99_ms for one in own),
            error_share=max(self.error_share if one.error_share is None else one.error_share for one in own),
        )


class _ObjectivesFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    objective: Promise


def read_objectives(path: Path = OBJECTIVES) -> Promise:
    """Return the objectives of a file.

    Raises:
        ValueError: If it is not TOML, lacks or misspells a field, or has one out of range.
    """
    found = msgspec.convert(tomllib.loads(path.read_text()), _ObjectivesFile).objective
    own = [(one.p99_ms, one.error_share) for one in found.models.values()]
    for p99_ms, error_share in [(found.p99_ms, found.error_share), *own]:
        if (p99_ms is not None and p99_ms <= 0) or (error_share is not None and not 0 <= error_share <= 1):
            raise ValueError(f"{path}: p99_ms is above 0 and error_share from 0 to 1, got {p99_ms} and {error_share}")
    return found
