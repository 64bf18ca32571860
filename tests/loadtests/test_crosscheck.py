import shutil
from pathlib import Path

import pytest

from benchmarks.loadgen.__main__ import FROM_DUE, CrosscheckRow, disagreements, markdown, questions, stub
from benchmarks.loadgen.generators import GENERATORS, OURS


def row(generator: str, ratio: float, failures: int = 0) -> CrosscheckRow:
    return CrosscheckRow(
        service="stub",
        rate=100.0,
        generator=generator,
        medians={"p50": 2.0 * ratio},
        ratios={"p50": ratio},
        answers=100,
        failures=failures,
    )


@pytest.mark.parametrize(
    ("ratio", "sentences"),
    [(1.0, 0), (1.09, 0), (0.92, 0), (1.12, 1), (0.9, 1)],
)
def test_a_tenth_is_the_bar_in_both_directions(ratio: float, sentences: int) -> None:
    assert len(disagreements([row(OURS, 1.0), row("k6", ratio)])) == sentences


def test_what_is_measured_from_another_moment_is_shown_only() -> None:
    assert not disagreements([row(FROM_DUE, 3.0)])


def test_failures_are_a_disagreement() -> None:
    assert disagreements([row("wrk", 1.0, failures=2)]) == ["stub, wrk: 2 failures"]


@pytest.mark.slow
@pytest.mark.parametrize("generator", list(GENERATORS))
def test_a_generator_keeps_the_rate_and_finds_the_work(generator: str, tmp_path: Path) -> None:
    """Each asks 100 a second for two seconds, and none finds less than the 4 ms that the stub computes."""
    if generator != OURS and shutil.which(generator) is None:
        pytest.skip(f"{generator} is not on the path")
    with stub(4.0) as address:
        found = GENERATORS[generator](questions(address, "viewcount", 100.0, 2), tmp_path)
    assert found.failures == 0
    assert 180 <= found.answers <= 220
    assert 4.0 <= found.p50 <= found.p90 <= found.p99


def test_the_table_names_who_is_apart() -> None:
    rows = [
        CrosscheckRow(
            service="stub",
            rate=100.0,
            generator="k6",
            medians={"p50": 2.0, "p90": 2.1, "p99": 3.0},
            ratios={"p50": 1.0, "p90": 1.0, "p99": 1.5},
            answers=100,
            failures=0,
        )
    ]
    page = markdown(rows, "5 rounds")
    assert "| stub | 100 | k6 | 2.00 (1.00) | 2.10 (1.00) | 3.00 (1.50) | 100 | 0 |" in page
    assert "- stub, k6: p99 is 1.50 times ours" in page
