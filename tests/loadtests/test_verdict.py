from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadtests import result
from loadtests.result import Finding, LoadResult
from loadtests.verdict import (
    THRESHOLDS,
    Exit,
    Thresholds,
    compare,
    exit_code,
    incomparable,
    judge,
    read_thresholds,
)

Make = Callable[..., Any]


@pytest.fixture(scope="session")
def thresholds() -> Thresholds:
    """Those of the file that is committed."""
    return read_thresholds()


def concluded(found: LoadResult, thresholds: Thresholds) -> Exit:
    found.verdict = judge(found, thresholds)
    return exit_code(found)


def test_a_run_within_its_objective_passes(made: Make, thresholds: Thresholds) -> None:
    assert concluded(made(), thresholds) is Exit.PASSED


def test_one_wrong_answer_fails_a_run_whatever_its_share(made: Make, part: Make, thresholds: Thresholds) -> None:
    for reason in ("wrong answer", "broken answer"):
        warm_up = part("warm-up", offered=100, outcomes={"ok": 99, reason: 1}, failed_share=0.01)
        found = made(parts=[warm_up, part(offered=99_900)])
        assert concluded(found, thresholds) is Exit.FAILED
        assert found.verdict == [f"1 of 100,000 answers: {reason}"]


def test_late_and_failed_requests_fail_a_run(made: Make, part: Make, thresholds: Thresholds) -> None:
    late = made(whole=part(missed_share=0.011))
    failed = made(whole=part(failed_share=0.002, outcomes={"ok": 98, "503 overloaded": 2}))
    assert concluded(late, thresholds) is Exit.FAILED
    assert "1.1% of the requests took longer than 100 ms" in late.verdict[0]
    assert concluded(failed, thresholds) is Exit.FAILED
    assert "most by “503 overloaded”" in failed.verdict[0]


def test_no_verdict_is_given_when_the_client_was_late(made: Make, part: Make, thresholds: Thresholds) -> None:
    late = part(missed_share=0.5)
    assert concluded(made(whole=late, client_limit="late"), thresholds) is Exit.CLIENT_LIMITED
    assert concluded(made(client_limit="late"), thresholds) is Exit.PASSED  # it held in spite of it
    wrong = part(missed_share=0.5, outcomes={"ok": 99, "wrong answer": 1})
    assert concluded(made(whole=wrong, parts=[wrong], client_limit="late"), thresholds) is Exit.FAILED


def test_an_overload_is_judged_by_what_comes_before_and_after(made: Make, part: Make, thresholds: Thresholds) -> None:
    flood = part("5 times", missed_share=0.8, failed_share=0.8, outcomes={"ok": 20, "503 overloaded": 80})
    whole = part(missed_share=0.5, failed_share=0.5, outcomes={"ok": 50, "503 overloaded": 50})
    well = made(profile="overload", whole=whole, parts=[part("before"), flood, part("after 5 times")])
    ill = made(profile="overload", whole=whole, parts=[part("before"), flood, part("after 5 times", missed_share=0.2)])
    assert concluded(well, thresholds) is Exit.PASSED
    assert concluded(ill, thresholds) is Exit.FAILED
    assert ill.verdict[0].startswith("after 5 times: 20.0%")


def test_a_refused_capacity_says_who_was_the_bottleneck(made: Make, thresholds: Thresholds) -> None:
    nothing = {"rate": None, "failed_rate": None, "upper_missed_share": None, "knee": "", "limit": ""}
    client = made(finding=Finding(**nothing, refused="no capacity is reported", blocked="the load generator"))
    service = made(finding=Finding(**nothing, refused="no rate was found"))
    assert concluded(client, thresholds) is Exit.CLIENT_LIMITED
    assert concluded(service, thresholds) is Exit.FAILED
    least = {**nothing, "rate": 100.0, "upper_missed_share": 0.0}
    assert concluded(made(finding=Finding(**least, blocked="the load generator")), thresholds) is Exit.CLIENT_LIMITED
    assert concluded(made(finding=Finding(**least)), thresholds) is Exit.PASSED


def test_an_interrupted_run_is_neither_passed_nor_failed(made: Make, part: Make, thresholds: Thresholds) -> None:
    assert concluded(made(is_interrupted=True), thresholds) is Exit.INTERRUPTED
    assert concluded(made(is_interrupted=True, whole=part(missed_share=0.5)), thresholds) is Exit.INTERRUPTED


def test_a_capacity_that_shrank_is_worse(made: Make, thresholds: Thresholds) -> None:
    def found(rate: float) -> LoadResult:
        finding = Finding(rate=rate, failed_rate=None, upper_missed_share=0.0, knee="", limit="")
        return made(profile="capacity", finding=finding)

    assert [one.is_worse for one in compare(found(89.0), found(100.0), thresholds.against)] == [True]
    assert [one.is_worse for one in compare(found(91.0), found(100.0), thresholds.against)] == [False]


def test_latency_and_rate_are_compared_and_noise_is_not(made: Make, part: Make, thresholds: Thresholds) -> None:
    slower = made(whole=part(latency_ms={"p50": 4.1, "p99": 13.0}, good_rate=94.0))
    worse = {one.name: one.is_worse for one in compare(slower, made(), thresholds.against)}
    assert worse == {"right answers/s": True, "p50, ms": False, "p99, ms": True}
    quick = part(latency_ms={"p50": 0.2, "p99": 0.5})
    tenfold = part(latency_ms={"p50": 1.9, "p99": 1.9})
    found = compare(made(whole=tenfold), made(whole=quick), thresholds.against)
    assert not any(one.is_worse for one in found)


def test_reports_of_different_things_are_not_compared(made: Make, part: Make) -> None:
    assert incomparable(made(), made()) == []
    other = made(machine={"cpu": "B", "cores": 2}, profile="step", whole=part(offered_rate=50.0))
    assert incomparable(made(), other) == [
        "the profile: step then, smoke now",
        "the processor: B then, A now",
        "the offered rate: 50.0/s then, 100.0/s now",
    ]


def test_a_misspelt_threshold_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "thresholds.toml"
    file.write_text(THRESHOLDS.read_text().replace("held_phases", "held_phase"))
    with pytest.raises(msgspec.ValidationError, match="held_phase"):
        read_thresholds(file)


def test_a_result_is_read_as_it_was_written(made: Make, tmp_path: Path) -> None:
    result.write(made(), tmp_path / "a" / "b.json")
    assert msgspec.to_builtins(result.read(tmp_path / "a" / "b.json")) == msgspec.to_builtins(made())
