"""Decide whether a run passed: by objectives, by an earlier report, with an exit code."""

import tomllib
from enum import IntEnum
from pathlib import Path

import msgspec

from loadtests.answers import BROKEN, WRONG
from loadtests.result import LoadResult, ModelResult
from loadtests.search import miss
from loadtests.task import Patience

THRESHOLDS = Path(__file__).parent / "thresholds.toml"


class Exit(IntEnum):
    """The exit codes of ``python -m loadtests``; 2 is a wrong command line."""

    PASSED = 0
    FAILED = 1
    UNUSABLE = 3
    CLIENT_LIMITED = 4
    INTERRUPTED = 130


class Against(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """By how much a figure may be worse than an earlier one."""

    p50: float
    p99: float
    good_rate: float
    capacity: float
    floor_ms: float


class Overload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Describe which phases of an overload must hold the objective."""

    held_phases: list[str]


class Thresholds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file ``thresholds.toml``."""

    overload: Overload
    client: Patience
    against: Against


def read_thresholds(path: Path = THRESHOLDS) -> Thresholds:
    """Return the thresholds of a file.

    Raises:
        ValueError: If it is not TOML, or lacks or misspells one.
    """
    return msgspec.convert(tomllib.loads(path.read_text()), Thresholds)


def judge(result: LoadResult, thresholds: Thresholds) -> list[str]:
    """Sentences about what failed; none when the run passed."""
    failures = [f"{count:,} of {offered:,} answers: {reason}" for reason, count, offered in _wrong(result)]
    if result.finding is not None:
        return failures + ([result.finding.refused] if result.finding.refused else [])
    for part in _held(result, thresholds):
        if why := miss(part, result.objective):
            failures.append(f"{part.name}: {why}")
    return failures


def _wrong(result: LoadResult) -> list[tuple[str, int, int]]:
    """Return how many answers were wrong or broken, of how many, wherever in the run, its warm-up included."""
    parts = [window.part for window in result.windows] or result.parts
    offered = sum(part.offered for part in parts)
    counts = {reason: sum(part.outcomes.get(reason, 0) for part in parts) for reason in (WRONG, BROKEN)}
    return [(reason, count, offered) for reason, count in counts.items() if count]


def _held(result: LoadResult, thresholds: Thresholds) -> list[ModelResult]:
    """Return the parts that are held to the objective."""
    if result.profile not in ("overload", "spike"):
        return [result.whole]
    return [part for part in result.parts if part.name in thresholds.overload.held_phases]


def exit_code(result: LoadResult) -> Exit:
    """Return what the verdict means to a shell; wrong answers are a failure even where the generator was late."""
    if result.is_interrupted:
        return Exit.INTERRUPTED
    is_blocked = result.finding is not None and bool(result.finding.blocked) and not _wrong(result)
    if is_blocked or (result.finding is None and result.client_limit and not _wrong(result) and result.verdict):
        return Exit.CLIENT_LIMITED
    return Exit.FAILED if result.verdict else Exit.PASSED


class ReportComparison(msgspec.Struct, frozen=True, kw_only=True):
    """One figure beside the earlier one.

    Attributes:
        name: Of the figure.
        earlier: Its value then.
        now: Its value.
        bound: How much it may be.
        is_worse: Whether it is beyond it.
    """

    name: str
    earlier: float
    now: float
    bound: float
    is_worse: bool


def compare(now: LoadResult, earlier: LoadResult, bounds: Against) -> list[ReportComparison]:
    """Return the figures of two reports side by side."""
    found = []
    if now.finding and earlier.finding and now.finding.rate and earlier.finding.rate:
        found.append(_less("capacity, requests/s", earlier.finding.rate, now.finding.rate, bounds.capacity))
    if now.finding is None:
        found.append(_less("right answers/s", earlier.whole.good_rate, now.whole.good_rate, bounds.good_rate))
        for name, ratio in (("p50", bounds.p50), ("p99", bounds.p99)):
            pair = earlier.whole.latency_ms.get(name), now.whole.latency_ms.get(name)
            if pair[0] is not None and pair[1] is not None:
                most = max(pair[0] * ratio, bounds.floor_ms)
                found.append(
                    ReportComparison(
                        name=f"{name}, ms", earlier=pair[0], now=pair[1], bound=round(most, 3), is_worse=pair[1] > most
                    )
                )
    return found


def _less(name: str, earlier: float, now: float, ratio: float) -> ReportComparison:
    least = earlier * ratio
    return ReportComparison(name=name, earlier=earlier, now=now, bound=round(least, 3), is_worse=now < least)


def incomparable(now: LoadResult, earlier: LoadResult) -> list[str]:
    """Return why two reports do not say anything about each other; none when they do."""
    found = []
    for what, mine, theirs in (
        ("the profile", now.profile, earlier.profile),
        ("the arrivals", now.arrivals, earlier.arrivals),
        ("the models' shares", now.weights, earlier.weights),
        ("the objective", now.objective, earlier.objective),
        ("the processor", now.machine["cpu"], earlier.machine["cpu"]),
        ("the number of cores", now.machine["cores"], earlier.machine["cores"]),
    ):
        if mine != theirs:
            found.append(f"{what}: {_said(theirs)} then, {_said(mine)} now")
    rates = now.whole.offered_rate, earlier.whole.offered_rate
    if now.finding is None and not now.users and abs(rates[0] - rates[1]) > 0.1 * rates[1]:
        found.append(f"the offered rate: {rates[1]:,.1f}/s then, {rates[0]:,.1f}/s now")
    return found


def _said(value: object) -> str:
    return msgspec.json.encode(value).decode() if isinstance(value, msgspec.Struct | dict) else str(value)
