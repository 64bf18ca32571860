import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from loadtests.mlperf.exam import LoggedAnswers, run
from loadtests.mlperf.scenario import Purpose, Scenario, ScenarioSettings
from loadtests.mlperf.served import Address
from tests.loadtests.mlperf.stub import Stub, windows

pytestmark = pytest.mark.slow
DELAY = 0.05
Start = Callable[[Stub], Address]


def settings(scenario: Scenario, **more: float) -> ScenarioSettings:
    """Return a short run; LoadGen plans with twice the queries it needs."""
    known = {"seconds": 0.3, "expected": 1e6 * 1000 * DELAY, "bound_ms": 200.0, "queries": 70}
    return dataclasses.replace(ScenarioSettings(scenario=scenario, **known), **more)


def ask(address: Address, logs: Path, scenario: Scenario, **more: float) -> LoggedAnswers:
    return run(address, windows(64, seed=0), settings(scenario, **more), logs)


def test_single_stream_finds_the_known_delay(start: Start, tmp_path: Path) -> None:
    """One after the other, each 40 ms: the early-stopping estimate of the 90th percentile says so within 10 %.

    A busy machine only ever adds, so one run of three must say so, and none may say less.
    """
    address = start(Stub(delay=0.04))
    for _ in range(3):
        found = ask(address, tmp_path, Scenario.SINGLE_STREAM, queries=100).outcome
        assert found.is_valid, found.reasons
        assert not found.reasons
        assert found.queries >= 100
        assert found.figure >= 40
        if found.figure <= 44:
            return
    pytest.fail(f"40 ms were found to be {found.figure} ms")


def test_too_few_queries_are_invalid(start: Start, tmp_path: Path) -> None:
    """Early stopping needs 64 queries at the 90th percentile."""
    found = ask(start(Stub(delay=0.01)), tmp_path, Scenario.SINGLE_STREAM, queries=20, seconds=0.01).outcome
    assert not found.is_valid
    assert any("64" in reason for reason in found.reasons), found.reasons


def test_multi_stream_sends_eight_at_once(start: Start, tmp_path: Path) -> None:
    """Eight samples in one request take as long as one."""
    found = ask(start(Stub(delay=0.002)), tmp_path, Scenario.MULTI_STREAM, queries=662, expected=2e6).outcome
    assert found.is_valid, found.reasons
    assert found.settings["samples_per_query"] == 8
    assert found.p50_ms < 8


def test_server_is_valid_when_the_bound_is_above_the_delay_only(start: Start, tmp_path: Path) -> None:
    """Poisson arrivals at 500 a second with 25 in flight: the stub holds 200 ms, and cannot hold 20 ms."""
    address = start(Stub(delay=DELAY))
    wide = ask(address, tmp_path, Scenario.SERVER, expected=500.0, queries=600, bound_ms=400.0).outcome
    assert wide.is_valid, wide.reasons
    assert wide.p50_ms >= 1000 * DELAY
    narrow = ask(address, tmp_path, Scenario.SERVER, expected=500.0, queries=600, bound_ms=20.0).outcome
    assert not narrow.is_valid
    assert any("Reduce target QPS" in reason for reason in narrow.reasons), narrow.reasons


def test_offline_asks_four_times_64_at_once(start: Start, tmp_path: Path) -> None:
    """Rounds of 256 samples, each 50 ms long: 5,120 samples a second at most."""
    found = ask(start(Stub(delay=DELAY)), tmp_path, Scenario.OFFLINE, expected=5000.0, queries=2048).outcome
    assert found.is_valid, found.reasons
    assert 3000 < found.figure <= 5120


def test_accuracy_mode_keeps_every_answer(start: Start, tmp_path: Path) -> None:
    """Each sample's answer comes back under its own number."""
    library = windows(64, seed=0)
    wanted = settings(Scenario.OFFLINE, purpose=Purpose.ACCURACY, seconds=0, queries=64)
    found = run(start(Stub()), library, wanted, tmp_path)
    assert sorted(number for number, _ in found.answers) == list(range(64))
    for number, answer in found.answers:
        last = library.samples[number].split(b"]")[0].rsplit(b",", 1)[1]
        assert answer == b'{"forecast":[%b]}' % last


@pytest.mark.parametrize(
    ("stub", "reason"),
    [
        (Stub(refused=10), "503"),
        (Stub(dropped=10), "closed"),
    ],
)
def test_what_is_not_answered_is_not_valid(start: Start, tmp_path: Path, stub: Stub, reason: str) -> None:
    """LoadGen times a refusal like an answer; the result counts it, and is not valid."""
    found = ask(start(stub), tmp_path, Scenario.SERVER, expected=500.0, queries=600).outcome
    assert not found.is_valid
    assert found.failures.keys() == {reason}
    assert 50 <= found.failures[reason] <= 70


def test_nobody_there_is_an_end(tmp_path: Path) -> None:
    """Where nothing listens every sample fails, and LoadGen does not wait for ever."""
    found = ask(Address(host="127.0.0.1", port=1), tmp_path, Scenario.SINGLE_STREAM).outcome
    assert not found.is_valid
    assert sum(found.failures.values()) == found.queries
