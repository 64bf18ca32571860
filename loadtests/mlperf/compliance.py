"""TEST01 and TEST04 of MLPerf Inference's compliance suite, in short interleaved rounds.

The rules compare one run of ten minutes with another. Here every comparison is made several times within a few seconds
of each other, and the median of the ratios counts: a machine's moods are longer than that.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from loadtests.mlperf.exam import LoggedOutcome, run
from loadtests.mlperf.library import SampleLibrary, random_library
from loadtests.mlperf.scenario import MULTI_STREAM_SAMPLES, Purpose, Scenario, ScenarioSettings
from loadtests.mlperf.served import ModelUnderTest
from models.card import Tolerance

ROUNDS = 3
ROUND_SECONDS = 0.5
# The rules' own margin, for noise.
MARGIN = 0.10
LOGGED = 512
# Of TEST04's rounds: enough for a median, and no more than can be drawn quickly.
LEAST_QUERIES, MOST_SAMPLES = 64, 2048
# Near capacity the median is mostly waiting, and a little more speed takes much of it away.
SERVER_SHARE = 0.5


class ComplianceVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """Describe how a compliance test ended.

    Attributes:
        name: ``"TEST01"`` or ``"TEST04"``.
        passed: Whether the service kept the rules.
        ratios: The speed of the test over the speed it is compared with, the median of the rounds, by what was asked.
        compared: Answers compared with those of accuracy mode (TEST01).
        different: Those that are not the same.
        reasons: Why it did not pass.
    """

    name: str
    passed: bool
    ratios: dict[str, float]
    compared: int = 0
    different: int = 0
    reasons: list[str]


def is_same(one: Any, other: Any, tolerance: Tolerance) -> bool:
    """Return whether two decoded answers say the same: words equal, numbers within the certificate's tolerance."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same(one[key], other[key], tolerance) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(lambda a, b: is_same(a, b, tolerance), one, other))
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= tolerance.atol + tolerance.rtol * abs(other)
    return bool(one == other)


def count_different(found: Sequence[tuple[int, bytes]], wanted: Mapping[int, bytes], tolerance: Tolerance) -> int:
    """Return how many answers differ from those of accuracy mode; one that is missing in either differs."""
    decode = msgspec.json.decode
    count = 0
    for number, answer in found:
        other = wanted.get(number)
        if answer != other or not answer:
            count += not (answer and other and is_same(decode(answer), decode(other), tolerance))
    return count


def check_answers(
    served: ModelUnderTest, library: SampleLibrary, settings: ScenarioSettings, wanted: Mapping[int, bytes], logs: Path
) -> ComplianceVerdict:
    """TEST01: answers in performance mode are those of accuracy mode, and logging them costs no speed.

    The whole library is asked in accuracy mode once, 64 to a request; here each answer is compared with the one given
    then, so that it may not depend on its company either.
    """
    # Equal issue would ask the whole library in every round; the seeds are the same, so both runs ask the same.
    plain = dataclasses.replace(settings, seconds=ROUND_SECONDS, queries=1, is_uneven=False)
    marked = dataclasses.replace(plain, logged=LOGGED)
    ratios, outcomes, different, compared = [], list[LoggedOutcome](), 0, 0
    for _ in range(ROUNDS):
        before = run(served.address, library, plain, logs)
        after = run(served.address, library, marked, logs)
        outcomes += [before.outcome, after.outcome]
        ratios.append(_rate(after.outcome) / _rate(before.outcome))
        compared += len(after.answers)
        different += count_different(after.answers, wanted, served.card.tolerance)
    ratio = median(ratios)
    reasons = _failures(outcomes)
    if different or not compared:
        reasons.append(f"{different} of {compared} answers differ from those of accuracy mode")
    if abs(ratio - 1) > MARGIN:
        reasons.append(f"speed changed by the factor {ratio:.2f}")
    return ComplianceVerdict(
        name="TEST01",
        passed=not reasons,
        ratios={"logged": round(ratio, 3)},
        compared=compared,
        different=different,
        reasons=reasons,
    )


def _rate(outcome: LoggedOutcome) -> float:
    """As the rules compare them: for Server by samples completed per second, else by the speed."""
    return outcome.figure if outcome.scenario is Scenario.SERVER else outcome.speed


def check_caching(
    served: ModelUnderTest, settings: ScenarioSettings, logs: Path, fresh: Callable[[int], SampleLibrary] | None = None
) -> ComplianceVerdict:
    """TEST04: what was asked before is not answered faster.

    Each round asks one new random request again and again, then many of them once, then the same ones again. The rules
    exempt inputs of uneven cost from the first; the last holds for all. New ones, because a test set that was asked in
    ten runs before would be in any cache. What is repeated comes first, for whatever comes first also wakes the service
    up. The quickest answers are compared, for Offline the samples per second: a cache makes the quickest one quicker,
    a busy machine makes none quicker, and Server's rate is the schedule's.
    """
    if settings.scenario is Scenario.SERVER:
        settings = dataclasses.replace(settings, expected=SERVER_SHARE * settings.expected)
    fresh = fresh or (lambda number: random_library(served, _samples(settings), _seed(settings, number)))
    ratios: dict[str, list[float]] = {"same": [], "again": []}
    outcomes = list[LoggedOutcome]()
    for number in range(ROUNDS):
        library = fresh(number)
        # The one that is repeated is not among the others: it would be their quickest.
        one = dataclasses.replace(library, samples=[library.samples[0]] * len(library.samples))
        rest = dataclasses.replace(library, samples=library.samples[1:], costs=library.costs[1:])
        found = {
            purpose: run(served.address, asked, _once(settings, asked, kind), logs).outcome
            for purpose, asked, kind in (
                ("same", one, Purpose.SAME),
                ("first", rest, Purpose.UNIQUE),
                ("again", rest, Purpose.UNIQUE),
            )
        }
        outcomes += found.values()
        for purpose, rounds in ratios.items():
            if purpose == "again" or not library.is_uneven:
                rounds.append(_quickness(found[purpose]) / _quickness(found["first"]))
    medians = {purpose: round(median(rounds), 3) for purpose, rounds in ratios.items() if rounds}
    reasons = _failures(outcomes)
    reasons += [f"{purpose}: {ratio:.2f} times as fast" for purpose, ratio in medians.items() if ratio > 1 + MARGIN]
    return ComplianceVerdict(name="TEST04", passed=not reasons, ratios=medians, reasons=reasons)


def _quickness(outcome: LoggedOutcome) -> float:
    return outcome.figure if outcome.scenario is Scenario.OFFLINE else 1000 / outcome.least_ms


def _failures(outcomes: list[LoggedOutcome]) -> list[str]:
    count = sum(sum(outcome.failures.values()) for outcome in outcomes)
    return [f"{count} samples without an answer"] if count else []


def _samples(settings: ScenarioSettings) -> int:
    """Random requests for a round of about ``ROUND_SECONDS``."""
    queries = ROUND_SECONDS * (1e9 / settings.expected if settings.scenario.is_stream else settings.expected)
    size = MULTI_STREAM_SAMPLES if settings.scenario is Scenario.MULTI_STREAM else 1
    return size * min(max(int(queries), LEAST_QUERIES), MOST_SAMPLES // size)


def _seed(settings: ScenarioSettings, number: int) -> int:
    """Another for every scenario and round: nothing is asked twice but by intent."""
    return 1000 + 10 * list(Scenario).index(settings.scenario) + number


def _once(settings: ScenarioSettings, library: SampleLibrary, purpose: Purpose) -> ScenarioSettings:
    samples = len(library.samples)
    queries = samples // MULTI_STREAM_SAMPLES if settings.scenario is Scenario.MULTI_STREAM else samples
    return dataclasses.replace(settings, purpose=purpose, seconds=0, queries=queries, is_uneven=False)
