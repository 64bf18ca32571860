"""From requests to figures: percentiles, rates, shares, and what they were over time."""

from collections.abc import Sequence

import numpy as np

from loadtests.plan import LoadPhase, phase_of
from loadtests.records import RecordTable
from loadtests.result import ModelResult, Moment
from loadtests.task import Objective

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
MOMENTS = 120
CURVE = (*range(0, 90, 5), *range(90, 99), *(99 + tenth / 10 for tenth in range(10)), 99.95, 99.99, 100.0)


def part(name: str, table: RecordTable, seconds: float, objective: Objective) -> ModelResult:
    """Return the figures of some requests that were offered within ``seconds``."""
    offered, is_ok = len(table), table.is_ok
    good = int(is_ok.sum())
    is_late = table.latency[is_ok] > objective.p99_ms / 1000
    return ModelResult(
        name=name,
        seconds=round(seconds, 3),
        offered=offered,
        offered_rate=round(offered / seconds, 2),
        good_rate=round(good / seconds, 2),
        latency_ms=_percentiles(table.latency[is_ok]),
        sent_ms=_percentiles(table.latency[is_ok] - table.lag[is_ok]),
        lag_p99_ms=_percentiles(table.lag).get("p99", 0.0),
        missed_share=(offered - good + int(is_late.sum())) / max(1, offered),
        failed_share=(offered - good) / max(1, offered),
        outcomes=table.outcomes(),
    )


def by_phase(phases: Sequence[LoadPhase], table: RecordTable, objective: Objective) -> list[ModelResult]:
    """Return the figures of each phase."""
    numbers = phase_of(phases, table.due)
    return [
        part(phase.name, table.where(numbers == number), phase.seconds, objective)
        for number, phase in enumerate(phases)
    ]


def by_model(names: Sequence[str], table: RecordTable, seconds: float, objective: Objective) -> list[ModelResult]:
    """Return the figures of each model."""
    return [part(name, table.where(table.model == at), seconds, objective) for at, name in enumerate(names)]


def counted(phases: Sequence[LoadPhase], table: RecordTable) -> RecordTable:
    """Return the requests of the phases that count."""
    is_counted = np.array([phase.is_counted for phase in phases])
    return table.where(is_counted[phase_of(phases, table.due)])


def counted_seconds(phases: Sequence[LoadPhase]) -> float:
    """Return how long the phases last that count."""
    return sum(phase.seconds for phase in phases if phase.is_counted)


def moments(table: RecordTable, seconds: float) -> list[Moment]:
    """What happened over time, in slices of a quarter of a second or more; a request belongs to when it was due."""
    width = max(0.25, seconds / MOMENTS)
    slices = np.floor(table.due / width)
    return [_moment(table.where(slices == at), (at + 0.5) * width, width) for at in range(int(seconds / width + 0.999))]


def _moment(table: RecordTable, at: float, width: float) -> Moment:
    latency, good = _percentiles(table.latency[table.is_ok]), int(table.is_ok.sum())
    return Moment(
        at=round(at, 3),
        offered_rate=round(len(table) / width, 2),
        good_rate=round(good / width, 2),
        failed_rate=round((len(table) - good) / width, 2),
        p50_ms=latency.get("p50"),
        p99_ms=latency.get("p99"),
    )


def curve(table: RecordTable) -> list[tuple[float, float]]:
    """Percentiles of the right answers' latency in milliseconds."""
    latency = table.latency[table.is_ok]
    if not len(latency):
        return []
    found = np.percentile(latency, CURVE)
    return [(float(share), round(1000 * float(value), 3)) for share, value in zip(CURVE, found, strict=True)]


def _percentiles(seconds: np.ndarray) -> dict[str, float]:
    if not len(seconds):
        return {}
    found = 1000 * np.percentile(seconds, list(PERCENTILES.values()))
    return {name: round(float(value), 3) for name, value in zip(PERCENTILES, found, strict=True)}
