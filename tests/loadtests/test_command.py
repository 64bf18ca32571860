from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from loadtests import result
from loadtests.__main__ import main
from loadtests.start import LOCUSTFILE
from models.datasets import REPOSITORY

Make = Callable[..., Any]


@pytest.fixture
def compare(made: Make, tmp_path: Path) -> Callable[..., Result]:
    """Runs ``compare`` on a report with the given fields and one that is as usual."""

    def run(**fields: Any) -> Result:
        result.write(made(**fields), tmp_path / "now.json")
        result.write(made(), tmp_path / "earlier.json")
        return CliRunner().invoke(main, ["compare", str(tmp_path / "now.json"), str(tmp_path / "earlier.json")])

    return run


def test_a_report_as_good_as_the_earlier_one_passes(compare: Callable[..., Result], tmp_path: Path) -> None:
    done = compare()
    assert done.exit_code == 0, done.output
    assert ">Passed<" in (tmp_path / "now.html").read_text()


def test_a_report_worse_than_the_earlier_one_ends_with_one(
    compare: Callable[..., Result], part: Make, tmp_path: Path
) -> None:
    done = compare(whole=part(latency_ms={"p50": 4.0, "p99": 30.0}))
    assert done.exit_code == 1
    assert "p99, ms: 30.0, was 8.0, and 12.0 is the bound" in done.output
    assert result.read(tmp_path / "now.json").verdict == ["p99, ms: 30.0, was 8.0, and 12.0 is the bound"]


def test_another_machines_report_decides_nothing(compare: Callable[..., Result], part: Make) -> None:
    other = {"cpu": "B", "cores": 64, "memory_gb": 1.0, "system": "Linux", "load_before": [0.0, 0.0, 0.0]}
    done = compare(whole=part(latency_ms={"p50": 4.0, "p99": 30.0}), machine=other)
    assert done.exit_code == 0
    assert "not comparable with the earlier report: the processor: A then, B now" in done.output


def test_a_replay_without_a_log_is_a_wrong_command_line() -> None:
    done = CliRunner().invoke(main, ["run", "--profile", "replay"])
    assert done.exit_code == 2
    assert "a replay needs --log" in done.output


def test_only_locusts_own_process_imports_locust() -> None:
    importing = [
        path.name
        for path in (REPOSITORY / "loadtests").rglob("*.py")
        if any(line.startswith(("import locust", "from locust")) for line in path.read_text().splitlines())
    ]
    assert sorted(importing) == [LOCUSTFILE.name, "users.py"]
