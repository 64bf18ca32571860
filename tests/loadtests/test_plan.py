from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kstest

from loadtests import profiles
from loadtests.plan import ArrivalPlan, Arrivals, LoadPhase, phase_of, schedule


def test_constant_arrivals_are_evenly_spaced() -> None:
    times = schedule([LoadPhase(name="a", seconds=2, rate=100)], Arrivals.CONSTANT, seed=1)
    assert len(times) == 200
    assert np.allclose(np.diff(times), 0.01)


def test_poisson_gaps_are_exponential_and_repeat_with_the_seed() -> None:
    phases = [LoadPhase(name="a", seconds=100, rate=100)]
    times = schedule(phases, Arrivals.POISSON, seed=3)
    assert abs(len(times) - 10_000) < 400
    assert kstest(np.diff(times) * 100, "expon").pvalue > 0.01
    assert kstest(schedule(phases, Arrivals.CONSTANT, seed=3)[1:] * 100 % 1, "expon").pvalue < 0.01  # the control
    assert np.array_equal(times, schedule(phases, Arrivals.POISSON, seed=3))
    assert not np.array_equal(times[:100], schedule(phases, Arrivals.POISSON, seed=4)[:100])


@pytest.mark.parametrize("kind", list(Arrivals))
def test_every_phase_gets_its_own_rate(kind: Arrivals) -> None:
    phases = [
        LoadPhase(name="quiet", seconds=10, rate=50),
        LoadPhase(name="up", seconds=10, rate=0, until=200),
        LoadPhase(name="none", seconds=5, rate=0),
        LoadPhase(name="spike", seconds=10, rate=400),
    ]
    times = schedule(phases, kind, seed=5)
    counts = np.bincount(phase_of(phases, times), minlength=4)
    assert np.all(np.abs(counts - [500, 1000, 0, 4000]) <= 4 * np.sqrt([500, 1000, 1, 4000]))
    assert np.all(np.diff(times) >= 0)
    # A rate that rises from nothing brings a quarter of its requests in the first half.
    rising = times[(times >= 10) & (times < 20)]
    assert np.mean(rising < 15) == pytest.approx(0.25, abs=0.05)


def test_workers_share_one_schedule_without_loss_or_repetition() -> None:
    phases = [LoadPhase(name="a", seconds=5, rate=100)]
    parts = [ArrivalPlan(phases=phases, index=index, workers=3).schedule() for index in range(3)]
    assert np.array_equal(
        np.sort(np.concatenate(parts)), schedule(phases, Arrivals.POISSON, ArrivalPlan(phases=phases).seed)
    )


def test_models_are_asked_by_their_weights() -> None:
    chosen = ArrivalPlan(phases=[]).choices([8, 2], 10_000)
    assert np.mean(chosen) == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("profile", list(profiles.PROFILES))
def test_every_profile_warms_up_first_and_counts_the_rest(profile: str) -> None:
    found = profiles.phases(profile, 100, 20, warm_seconds=2)
    assert [phase.is_counted for phase in found] == [False] + [True] * (len(found) - 1)
    assert sum(phase.seconds for phase in found if phase.is_counted) == pytest.approx(20)
    assert profiles.phases(profile, 100, 20, warm_seconds=0)[0].is_counted


def test_an_overload_is_five_and_ten_times_the_rate_with_quiet_after_each() -> None:
    assert [phase.rate for phase in profiles.overload(30, 50)] == [30, 150, 30, 300, 30]


def test_a_replay_keeps_the_gaps_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("1000.5 GET /\n1000.0,x\n\n1002.5\n")
    phases, times = profiles.replay(log, speed=2.0, warm_seconds=0)
    assert times == [0.0, 0.25, 1.25]
    assert ArrivalPlan(phases=phases, times=times).schedule().tolist() == times
    assert phase_of(phases, np.array(times)).tolist() == [0, 0, 0]


def test_a_replay_says_which_line_is_no_timestamp(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("1.0\nyesterday\n")
    with pytest.raises(ValueError, match="line 2: expected a timestamp in seconds, found 'yesterday'"):
        profiles.replay(log, speed=1.0)
    log.write_text("1.0\n")
    with pytest.raises(ValueError, match="two timestamps or more, found 1"):
        profiles.replay(log, speed=1.0)
