from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from loadtests.result import Finding, TimeWindow
from loadtests.search import SearchStep, interrupted, judge, search, upper_share
from loadtests.task import CapacitySearch, Objective, Patience

OBJECTIVE = Objective(p99_ms=100.0, error_share=0.001)
Service = Callable[[SearchStep], TimeWindow]


def drive(service: Service, **hunt: Any) -> tuple[Finding, list[TimeWindow]]:
    """Return a whole search against a service that is a function."""
    trials, windows = search(CapacitySearch(**hunt), OBJECTIVE), list[TimeWindow]()
    trial = next(trials)
    while True:
        windows.append(service(trial))
        try:
            trial = trials.send(windows[-1])
        except StopIteration as end:
            return end.value, windows


@pytest.fixture
def service(part: Any, used: Any) -> Callable[..., Service]:
    """Makes services that carry so much, with hiccups in a share of the windows."""

    def make(carries: float, hiccups: float = 0.0, client_carries: float = 1e9, seed: int = 0) -> Service:
        rng = np.random.default_rng(seed)

        def answer(trial: SearchStep) -> TimeWindow:
            offered = int(trial.rate * trial.seconds)
            missed = max(0.0, 1 - carries / trial.rate)
            if rng.random() < hiccups:
                missed = max(missed, 0.05)
            is_late = trial.rate > client_carries
            found = part(
                offered=offered,
                missed_share=1.0 if is_late else missed,
                lag_p99_ms=80.0 if is_late else 0.1,
                latency_ms={"p50": 2.0, "p90": 4.0, "p99": 20.0},
            )
            busy = used(busiest_process=min(1.0, trial.rate / carries))
            return judge(trial, found, part(), busy, OBJECTIVE, Patience())

        return answer

    return make


@pytest.mark.parametrize("carries", [61.0, 333.0, 800.0, 4711.0])
def test_finds_what_a_service_carries(service: Any, carries: float) -> None:
    found, windows = drive(service(carries))
    assert found.rate == pytest.approx(carries, rel=0.03)
    assert found.failed_rate is not None
    assert found.rate < found.failed_rate <= 1.05 * carries
    assert found.limit.startswith("the server's CPU")
    assert len(windows) < 30


@pytest.mark.parametrize("seed", range(20))
def test_a_hiccup_in_every_tenth_window_neither_makes_nor_breaks_a_rate(service: Any, seed: int) -> None:
    found, _ = drive(service(800.0, hiccups=0.1, seed=seed))
    assert found.rate is None or found.rate == pytest.approx(800.0, rel=0.15)


def test_where_the_client_was_the_bottleneck_what_held_is_a_lower_bound(service: Any) -> None:
    found, windows = drive(service(5000.0, client_carries=1000.0))
    assert found.rate == pytest.approx(1000.0, rel=0.03)
    assert found.rate <= 1000.0
    assert (found.blocked, found.failed_rate, found.refused) == ("the load generator", None, "")
    assert "it may carry more" in found.knee
    assert [window.is_held for window in windows[-3:]] == [True] * 3


def test_nothing_is_reported_when_the_client_was_the_bottleneck_from_the_start(service: Any) -> None:
    found, windows = drive(service(5000.0, client_carries=10.0))
    assert found.rate is None
    assert "the client was the bottleneck (the load generator)" in found.refused
    assert [window.is_void for window in windows] == [True] * 3


FULL = {"cores": 2, "machine_share": 0.98, "server_cores": 1.2, "client_cores": 0.7, "client_share": 0.7}


def test_a_machine_that_service_and_generator_fill_is_what_carries_so_much(part: Any, used: Any) -> None:
    """The generator is late because the cores are taken, and more tries would find it so again."""
    late = part(missed_share=0.5, lag_p99_ms=80.0)
    window = judge(SearchStep(100, 1, "climb"), late, late, used(**FULL), OBJECTIVE, Patience())
    assert (window.is_held, window.is_void) == (False, False)
    assert window.blame == "the machine, which service and load generator share"


@pytest.mark.parametrize("lag_ms", [0.1, 80.0])
def test_a_machine_that_others_fill_says_nothing_about_the_service(part: Any, used: Any, lag_ms: float) -> None:
    """Whether or not the generator still got its turn in time."""
    missed, busy = part(missed_share=0.5, lag_p99_ms=lag_ms), {**FULL, "server_cores": 0.3, "client_cores": 0.2}
    window = judge(SearchStep(100, 1, "climb"), missed, missed, used(**busy), OBJECTIVE, Patience())
    assert window.is_void
    assert window.blame == "other processes on the machine"
    assert "the service took 0.30, the generator 0.20, others 1.46" in window.why


def test_a_machine_with_room_leaves_the_generator_to_blame(part: Any, used: Any) -> None:
    late = part(missed_share=0.5, lag_p99_ms=80.0)
    window = judge(SearchStep(100, 1, "climb"), late, late, used(cores=2, machine_share=0.6), OBJECTIVE, Patience())
    assert (window.is_void, window.blame) == (True, "the load generator")


def test_an_interrupted_search_says_what_held(service: Any) -> None:
    trials, windows = search(CapacitySearch(), OBJECTIVE), list[TimeWindow]()
    trial = next(trials)
    for _ in range(4):
        windows.append(service(333.0)(trial))
        trial = trials.send(windows[-1])
    found = interrupted(windows)
    assert (found.rate, found.held_rate, found.failed_rate) == (None, 200.0, 400.0)
    assert "interrupted before a rate was confirmed" in found.refused


def test_a_late_client_does_not_matter_where_the_objective_held(part: Any, used: Any) -> None:
    late = part(lag_p99_ms=80.0)
    assert judge(SearchStep(100, 1, "climb"), late, part(), used(), OBJECTIVE, Patience()).is_held


def test_a_busy_generator_is_a_bottleneck_even_when_it_leaves_on_time(part: Any, used: Any) -> None:
    missed = part(missed_share=0.5)
    window = judge(SearchStep(100, 1, "climb"), missed, missed, used(client_share=0.95), OBJECTIVE, Patience())
    assert window.is_void
    assert window.why == "a generator process used 95% of its core"


def test_a_queue_that_grows_in_the_second_half_is_no_rate_that_holds(part: Any, used: Any) -> None:
    window = judge(SearchStep(100, 1, "climb"), part(), part(missed_share=0.05), used(), OBJECTIVE, Patience())
    assert not window.is_held
    assert "a queue grows" in window.why


def test_a_service_that_never_holds_has_no_capacity(service: Any) -> None:
    found, _ = drive(service(1.0))
    assert found.rate is None
    assert found.refused == ("No rate was found at which the objective holds; the slowest tried was 50 requests/s.")


def test_the_end_of_what_was_to_be_tried_is_said(service: Any) -> None:
    found, _ = drive(service(1e6), most=1000.0)
    assert found.rate == 800.0
    assert "as far as was tried" in found.knee


@pytest.mark.parametrize(("missed", "offered", "bound"), [(0, 299, 0.00997), (10, 2000, 0.00846), (5, 5, 1.0)])
def test_the_bound_of_a_share_is_clopper_and_pearsons(missed: int, offered: int, bound: float) -> None:
    assert upper_share(missed, offered) == pytest.approx(bound, rel=0.01)


def test_a_search_that_two_hiccups_misled_climbs_on(service: Any) -> None:
    steady, count = service(800.0), 0

    def misleading(trial: SearchStep) -> TimeWindow:
        nonlocal count
        count += 1
        return (service(800.0, hiccups=1.0) if count in (2, 3) else steady)(trial)

    found, windows = drive(misleading)
    assert "challenge" in {window.stage for window in windows}
    assert found.rate == pytest.approx(800.0, rel=0.03)


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"busiest_process": 0.97}, "the server's CPU: its busiest process used 97% of a core"),
        ({"machine_share": 0.99, "server_cores": 0.9}, "the machine's CPU: 99% of its 1 cores were busy"),
        ({"network_mb": 120.0, "network_limit_mb": 125.0}, "the network: 120 of 125 MB/s"),
        ({"stolen_share": 0.2}, "other machines, which took 20% of the cores"),
        ({}, "the service itself, neither CPU nor network nor client: its processes (1) used 0.50 cores"),
        ({"server_cores": None, "busiest_process": None}, "its processes cannot be seen from here"),
    ],
)
def test_what_limited_is_said(part: Any, used: Any, figures: dict[str, Any], said: str) -> None:
    def answer(trial: SearchStep) -> TimeWindow:
        found = part(missed_share=float(trial.rate > 100))
        return judge(trial, found, part(), used(**figures), OBJECTIVE, Patience())

    assert said in drive(answer)[0].limit


def test_failures_in_one_window_of_four_count_over_all_of_them(part: Any, used: Any) -> None:
    def answer(trial: SearchStep) -> TimeWindow:
        tried[trial] = tried.get(trial, 0) + 1
        # Above 700/s the second confirming window fails at 0.5 %, which is more than 0.1 % of four.
        share = 0.005 if trial.stage == "confirm" and trial.rate > 700 and tried[trial] == 2 else 0.0
        found = part(offered=10_000, missed_share=share, failed_share=share, outcomes={"ok": 9950, "503": 50})
        return judge(trial, found, part(), used(), OBJECTIVE, Patience())

    tried: dict[SearchStep, int] = {}
    found, windows = drive(answer, most=1000.0)
    assert [window.is_held for window in windows if window.rate == 800.0] == [True, True, False, True, True]
    assert found.rate is not None
    assert 600 < found.rate <= 700
