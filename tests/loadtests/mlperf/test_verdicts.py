"""What the compliance tests and the page say of runs whose figures are known; LoadGen is not asked."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadtests.mlperf import compliance, page
from loadtests.mlperf.compliance import check_answers, check_caching
from loadtests.mlperf.exam import LoggedAnswers, LoggedOutcome
from loadtests.mlperf.library import SampleLibrary
from loadtests.mlperf.page import Accuracy, MlperfReport, ReportRow
from loadtests.mlperf.scenario import Purpose, Scenario, ScenarioSettings
from loadtests.mlperf.served import Address, IndexEntry, ModelUnderTest
from models.registry import find_card

RIGHT = [(0, b'{"forecast":[1.0]}')]


def outcome(scenario: Scenario, *, figure: float = 100.0, ms: float = 2.0, failures: int = 0) -> LoggedOutcome:
    return LoggedOutcome(
        scenario=scenario,
        is_valid=True,
        reasons=[],
        figure=figure,
        least_ms=ms,
        p50_ms=ms,
        p90_ms=ms,
        p99_ms=ms,
        queries=100,
        failures={"503": failures} if failures else {},
        client_cores=0.1,
        settings={},
        loadgen="6",
    )


def served() -> ModelUnderTest:
    entry = IndexEntry(name="viewcount", version="1", family="viewcount", task="forecast", digest="")
    assets: Any = None
    address = Address(host="", port=0)
    return ModelUnderTest(address=address, entry=entry, card=find_card("viewcount", "forecast"), assets=assets)


def settings(scenario: Scenario) -> ScenarioSettings:
    return ScenarioSettings(scenario=scenario, seconds=10, expected=100.0, bound_ms=10, queries=100)


def library(*costs: int) -> SampleLibrary:
    return SampleLibrary(head=b"", source="", samples=[b"{}"] * len(costs), costs=costs)


def plan(monkeypatch: pytest.MonkeyPatch, runs: Iterator[LoggedOutcome]) -> list[ScenarioSettings]:
    """Every run ends as planned; what was asked of it is kept."""
    asked: list[ScenarioSettings] = []

    def run(_: Any, __: Any, wanted: ScenarioSettings, ___: Any) -> LoggedAnswers:
        asked.append(wanted)
        return LoggedAnswers(outcome=next(runs), answers=RIGHT if wanted.logged else [])

    monkeypatch.setattr(compliance, "run", run)
    return asked


@pytest.mark.parametrize(
    ("scenario", "before", "after", "passes"),
    [
        (Scenario.SINGLE_STREAM, {"ms": 2.0}, {"ms": 2.1}, True),
        (Scenario.SINGLE_STREAM, {"ms": 2.0}, {"ms": 2.3}, False),
        (Scenario.SINGLE_STREAM, {"ms": 2.0}, {"ms": 1.7}, False),
        (Scenario.SERVER, {"ms": 2.0, "figure": 100.0}, {"ms": 3.0, "figure": 99.0}, True),
        (Scenario.SERVER, {"figure": 100.0}, {"figure": 85.0}, False),
        (Scenario.OFFLINE, {"figure": 100.0}, {"figure": 89.0}, False),
    ],
)
def test_logging_may_change_the_speed_by_a_tenth(
    monkeypatch: pytest.MonkeyPatch,
    scenario: Scenario,
    before: dict[str, float],
    after: dict[str, float],
    passes: bool,
) -> None:
    pairs = (outcome(scenario, **kind) for _ in range(compliance.ROUNDS) for kind in (before, after))
    asked = plan(monkeypatch, pairs)
    found = check_answers(served(), library(1, 1), settings(scenario), dict(RIGHT), Path())
    assert found.passed is passes, found
    assert [bool(one.logged) for one in asked] == [False, True] * compliance.ROUNDS


def test_one_odd_round_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The median counts."""
    times = iter((2.0, 9.0, 2.0, 2.0, 2.0, 2.0))
    plan(monkeypatch, (outcome(Scenario.SINGLE_STREAM, ms=ms) for ms in times))
    assert check_answers(served(), library(1), settings(Scenario.SINGLE_STREAM), dict(RIGHT), Path()).passed


@pytest.mark.parametrize(("failures", "wanted"), [(1, RIGHT), (0, [(0, b'{"forecast":[9.0]}')]), (0, [])])
def test_a_refused_or_another_answer_breaks_test01(
    monkeypatch: pytest.MonkeyPatch, failures: int, wanted: list[tuple[int, bytes]]
) -> None:
    plan(monkeypatch, (outcome(Scenario.OFFLINE, failures=failures) for _ in range(2 * compliance.ROUNDS)))
    assert not check_answers(served(), library(1), settings(Scenario.OFFLINE), dict(wanted), Path()).passed


@pytest.mark.parametrize(
    ("costs", "same", "again", "passes", "judged"),
    [
        ((1, 1, 1), 2.0, 2.0, True, {"same", "again"}),
        ((1, 1, 1), 1.0, 2.0, False, {"same", "again"}),
        ((1, 1, 1), 2.0, 1.7, False, {"same", "again"}),
        ((1, 2, 3), 0.5, 2.0, True, {"again"}),
        ((1, 2, 3), 2.0, 1.0, False, {"again"}),
    ],
)
def test_uneven_inputs_are_judged_by_the_second_asking_only(
    monkeypatch: pytest.MonkeyPatch, costs: tuple[int, ...], same: float, again: float, passes: bool, judged: set[str]
) -> None:
    """As the rules exempt them: a cheap one that is repeated is quicker than the others without any cache."""
    times = [same, 2.0, again] * compliance.ROUNDS
    asked = plan(monkeypatch, (outcome(Scenario.SINGLE_STREAM, ms=ms) for ms in times))
    found = check_caching(served(), settings(Scenario.SINGLE_STREAM), Path(), lambda _: library(*costs))
    assert found.passed is passes, found
    assert found.ratios.keys() == judged
    assert [one.purpose for one in asked[:3]] == [Purpose.SAME, Purpose.UNIQUE, Purpose.UNIQUE]
    assert [one.queries for one in asked[:3]] == [3, 2, 2]


def test_server_is_asked_at_half_its_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = plan(monkeypatch, (outcome(Scenario.SERVER) for _ in range(3 * compliance.ROUNDS)))
    check_caching(served(), settings(Scenario.SERVER), Path(), lambda _: library(1, 1))
    assert {one.expected for one in asked} == {50.0}


def report(model: str, found: LoggedOutcome) -> MlperfReport:
    mark = Accuracy(
        metric="accuracy",
        unit="%",
        certified=90.0,
        found=90.0,
        is_better_high=True,
        answers=2,
        samples=2,
        failures={},
    )
    return MlperfReport(
        model=model,
        version="1",
        family="image",
        digest="",
        provider="stub",
        library="test set",
        samples=2,
        is_uneven=False,
        seconds=10,
        command="",
        commit="",
        date="",
        machine={"cpu": "one", "cores": 1, "load_before": [0.0]},
        accuracy=mark,
        rows=[ReportRow(outcome=found, expected=1.0, bound_ms=10.0, verdicts=[])],
    )


def test_another_models_rows_stay(tmp_path: Path) -> None:
    """A run of one model renews its own rows only."""
    page.write([report("b", outcome(Scenario.SERVER)), report("a", outcome(Scenario.SERVER))], tmp_path)
    page.write([report("b", outcome(Scenario.SINGLE_STREAM))], tmp_path)
    found = page.read(tmp_path / "mlperf.json")
    assert [(one.model, one.rows[0].outcome.scenario) for one in found] == [
        ("a", Scenario.SERVER),
        ("b", Scenario.SINGLE_STREAM),
    ]


def test_the_page_says_where_the_client_may_limit(tmp_path: Path) -> None:
    """Not a failure, but no reader should have to guess it."""
    busy = msgspec.structs.replace(outcome(Scenario.SERVER), client_cores=0.97)
    text = page.write([report("a", busy)], tmp_path).read_text()
    assert "- a Server: the client used 0.97 cores, and may be what limited" in text
    assert "may be what limited" not in page.markdown([report("a", outcome(Scenario.SERVER))])
