from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadtests.mlperf import compliance
from loadtests.mlperf.compliance import check_answers, check_caching, count_different, is_same
from loadtests.mlperf.exam import run
from loadtests.mlperf.scenario import Purpose, Scenario, ScenarioSettings
from loadtests.mlperf.served import Address, IndexEntry, ModelUnderTest, ServedScore
from models.card import Tolerance
from models.registry import find_card
from tests.loadtests.mlperf.stub import Stub, windows

Start = Callable[[Stub], Address]
SETTINGS = ScenarioSettings(scenario=Scenario.SINGLE_STREAM, seconds=0.3, expected=1e6, bound_ms=200.0, queries=70)


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three short rounds: a stub has no moods."""
    monkeypatch.setattr(compliance, "ROUNDS", 3)
    monkeypatch.setattr(compliance, "ROUND_SECONDS", 0.2)


def served(address: Address) -> ModelUnderTest:
    score = ServedScore(metric="", unit="", test=0.0, instances=0)
    entry = IndexEntry(
        name="viewcount",
        version="1",
        family="viewcount",
        task="forecast",
        data="",
        digest="",
        provider="",
        score=score,
    )
    assets: Any = None
    return ModelUnderTest(address=address, entry=entry, card=find_card("viewcount", "forecast"), assets=assets)


@pytest.mark.slow
def test_a_service_without_a_cache_keeps_test04(start: Start, tmp_path: Path) -> None:
    found = check_caching(served(start(Stub(delay=0.01))), SETTINGS, tmp_path, lambda number: windows(16, number))
    assert found.passed, found.reasons
    assert found.ratios.keys() == {"same", "again"}


@pytest.mark.slow
def test_a_cache_is_caught_by_test04(start: Start, tmp_path: Path) -> None:
    """The control: what was asked before comes at once, whether it is one sample or all of them."""
    stub = Stub(delay=0.01, caches=True)
    found = check_caching(served(start(stub)), SETTINGS, tmp_path, lambda number: windows(16, number))
    assert not found.passed
    assert min(found.ratios.values()) > 5, found.ratios


@pytest.mark.slow
@pytest.mark.parametrize(("wrong", "passes"), [(0, True), (20, False)])
def test_answers_that_change_are_caught_by_test01(start: Start, tmp_path: Path, wrong: int, passes: bool) -> None:
    """Every twentieth answer is another one than in accuracy mode."""
    library = windows(64, seed=0)
    good = ScenarioSettings(
        scenario=Scenario.OFFLINE, purpose=Purpose.ACCURACY, seconds=0, expected=1.0, bound_ms=0.0, queries=64
    )
    wanted = run(start(Stub()), library, good, tmp_path).answers
    found = check_answers(served(start(Stub(delay=0.005, wrong=wrong))), library, SETTINGS, dict(wanted), tmp_path)
    assert found.compared > 40
    assert (found.different == 0) is passes
    assert any("differ from" in reason for reason in found.reasons) is not passes


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (b'{"label":"a","p":[0.5,0.25]}', b'{"label":"a","p":[0.5000001,0.25]}', True),
        (b'{"label":"a","p":[0.5,0.25]}', b'{"label":"a","p":[0.6,0.25]}', False),
        (b'{"label":"a"}', b'{"label":"b"}', False),
        (b'{"class_id":1}', b'{"class_id":2}', False),
        (b'{"p":[0.5]}', b'{"p":[0.5,0.5]}', False),
        (b'{"p":[0.5]}', b'{"q":[0.5]}', False),
        (b"", b'{"p":[0.5]}', False),
    ],
)
def test_what_counts_as_the_same_answer(one: bytes, other: bytes, same: bool) -> None:
    """Words and class ids exactly, numbers within the certificate's tolerance."""
    tolerance = Tolerance(atol=1e-5, rtol=1e-5, reason="")
    assert count_different([(0, one)], {0: other}, tolerance) == (0 if same else 1)
    assert count_different([(0, one)], {}, tolerance) == 1
    assert is_same({"a": 1.0}, {"a": 1.0}, tolerance)
