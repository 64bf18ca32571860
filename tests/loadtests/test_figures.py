import numpy as np
import pytest

from loadtests import figures, scrape
from loadtests.plan import LoadPhase
from loadtests.records import OK, Records, RecordTable, merge
from loadtests.task import Objective

OBJECTIVE = Objective(p99_ms=50.0, error_share=0.0)


def table() -> RecordTable:
    """Return a hundred answers of 1 to 100 ms, one each 10 ms; every tenth of another model, and two failures."""
    one, other = Records(), Records()
    for number in range(100):
        mine = one if number % 2 else other
        reason = {98: "503", 99: "reset"}.get(number, OK)
        mine.add(number / 100, 0.001, (number + 1) / 1000, reason, int(number % 10 == 0))
    return merge([one.to_message(), other.to_message()])


def test_the_records_of_two_workers_become_one_table_in_order() -> None:
    found = table()
    assert np.allclose(found.due, np.arange(100) / 100)
    assert np.allclose(found.latency * 1000, np.arange(1, 101))
    assert found.outcomes() == {"ok": 98, "503": 1, "reset": 1}
    assert [found.reasons[at] for at in found.outcome[-2:]] == ["503", "reset"]


def test_the_figures_of_a_known_table() -> None:
    part = figures.part("all", table(), 1.0, OBJECTIVE)
    assert (part.offered, part.offered_rate, part.good_rate) == (100, 100.0, 98.0)
    assert part.latency_ms["p50"] == pytest.approx(49.5)
    assert part.latency_ms["max"] == 98.0
    assert part.sent_ms["max"] == 97.0
    assert part.failed_share == 0.02
    assert part.missed_share == pytest.approx(0.50)  # 48 late and two failed


def test_what_is_not_counted_is_left_out() -> None:
    phases = [
        LoadPhase(name="warm-up", seconds=0.25, rate=100, is_counted=False),
        LoadPhase(name="rest", seconds=0.75, rate=100),
    ]
    assert len(figures.counted(phases, table())) == 75
    assert [part.offered for part in figures.by_phase(phases, table(), OBJECTIVE)] == [25, 75]
    assert figures.counted_seconds(phases) == 0.75


def test_models_have_their_own_figures() -> None:
    assert [part.offered for part in figures.by_model(["a", "b"], table(), 1.0, OBJECTIVE)] == [90, 10]


def test_moments_hold_every_request_once() -> None:
    found = figures.moments(table(), 1.0)
    assert [moment.at for moment in found] == [0.125, 0.375, 0.625, 0.875]
    assert sum(moment.offered_rate for moment in found) * 0.25 == 100
    assert sum(moment.failed_rate for moment in found) * 0.25 == 2


def test_a_table_without_right_answers_has_no_percentiles() -> None:
    records = Records()
    records.add(0.0, 0.0, 1.0, "503", 0)
    empty = merge([records.to_message()])
    assert figures.part("all", empty, 1.0, OBJECTIVE).latency_ms == {}
    assert figures.curve(empty) == []


BEFORE = """# TYPE lectern_requests counter
lectern_requests_total{model="a",outcome="ok"} 10
# TYPE lectern_request_seconds histogram
lectern_request_seconds_bucket{model="a",le="0.1"} 10
lectern_request_seconds_bucket{model="a",le="0.2"} 10
lectern_request_seconds_bucket{model="a",le="+Inf"} 10
lectern_request_seconds_count{model="a"} 10
lectern_request_seconds_sum{model="a"} 0.5
# TYPE python_info gauge
python_info 1
"""
AFTER = """# TYPE lectern_requests counter
lectern_requests_total{model="a",outcome="ok"} 30
lectern_requests_total{model="b",outcome="ok"} 0
# TYPE lectern_request_seconds histogram
lectern_request_seconds_bucket{model="a",le="0.1"} 20
lectern_request_seconds_bucket{model="a",le="0.2"} 30
lectern_request_seconds_bucket{model="a",le="+Inf"} 30
lectern_request_seconds_count{model="a"} 30
lectern_request_seconds_sum{model="a"} 2.5
# TYPE python_info gauge
python_info 1
"""


def test_the_services_own_figures_are_what_they_grew_by() -> None:
    counter, histogram = scrape.growth(BEFORE, AFTER)
    assert (counter.name, counter.count, counter.mean) == ("lectern_requests", 20, None)
    assert (histogram.count, histogram.mean) == (20, 0.1)
    assert histogram.p50 == pytest.approx(0.1)
    assert histogram.p99 == pytest.approx(0.198)
    assert scrape.growth(AFTER, AFTER) == []
