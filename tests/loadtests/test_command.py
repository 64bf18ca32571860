from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from loadtests import result
from loadtests.command import main
from loadtests.start import LOCUSTFILE
from loadtests.verdict import Exit
from loadtests.words import plan_capacity, summary
from models.paths import REPOSITORY

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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rate", "-1"], "'--rate': -1.0 is not in the range x>0"),
        (["--rate", "nan"], "nan is no finite number"),
        (["--rate", "inf"], "inf is no finite number"),
        (["--seconds", "0"], "'--seconds'"),
        (["--users", "0"], "'--users'"),
        (["--bind-port", "70000"], "'--bind-port'"),
        (["--profile", "smoky"], "'smoky' is not one of 'smoke', 'ramp'"),
        (["--rat", "5"], "--rate"),
        (["--models", "viewcount=x"], "the weight of viewcount must be a number above 0, got 'x'"),
        (["--models", "viewcount=0"], "the weight of viewcount must be a number above 0, got '0'"),
        (["--models", "a,a"], "each model is named once, got 'a'"),
        (["--data", "tagging"], "expected MODEL=FILE"),
        (["--host", "ftp://x"], "the host must be [http[s]://]HOST[:PORT][/PATH], got 'ftp://x'"),
        (["--profile", "replay", "--log", str(REPOSITORY / "LICENSE")], "expected a timestamp in seconds"),
        (["--key-file", str(REPOSITORY / "LICENSE")], "must hold one key"),
        (["--against", str(REPOSITORY / "LICENSE")], "LICENSE"),
        (["--thresholds", str(REPOSITORY / "pyproject.toml")], "pyproject.toml"),
        (["--objectives", str(REPOSITORY / "pyproject.toml")], "pyproject.toml"),
        (["--out", "/dev/null/found.json"], "/dev/null"),
    ],
)
def test_a_wrong_word_ends_in_one_line(words: list[str], said: str) -> None:
    """The line names the option, what is allowed and what was found; nothing is asked."""
    done = CliRunner().invoke(main, ["run", *words])
    assert done.exit_code == 2, done.output
    assert said in done.output
    assert done.output.startswith("lectern: ")
    assert done.output.count("\n") == 1


@pytest.mark.parametrize("words", [["capacity", "--model", "a", "--target-rate", "-1"], ["limit", "--most", "x"]])
def test_every_command_ends_in_one_line(words: list[str]) -> None:
    done = CliRunner().invoke(main, words)
    assert (done.exit_code, done.output.count("\n")) == (2, 1)


def test_mlperf_without_a_service_cannot_be_measured() -> None:
    pytest.importorskip("mlperf_loadgen")
    done = CliRunner().invoke(main, ["mlperf", "--host", "127.0.0.1:9"])
    assert done.exit_code == 3
    assert done.output == "lectern: nothing answers on 127.0.0.1:9 (Connection refused); does the service run there?\n"


def found_capacity(made: Make, part: Make, used: Make, **finding: Any) -> result.LoadResult:
    """Return a search that ended at 100 requests per second."""
    usual = {"rate": 100.0, "failed_rate": 110.0, "upper_missed_share": 0.0, "knee": "", "limit": ""}
    busy = used(server_cores=0.5, server_processes=3, server_mb=412.4)
    window = result.TimeWindow(rate=100.0, stage="confirm", part=part(), used=busy, is_held=True, is_void=False, why="")
    found: result.LoadResult = made(windows=[window], finding=result.Finding(**{**usual, **finding}))
    return found


def test_a_planner_is_answered_in_one_line(made: Make, part: Make, used: Make) -> None:
    """The rate within the objective, per core, memory, and replicas for a target."""
    assert plan_capacity(found_capacity(made, part, used), 450.0) == [
        "Plan: 100 requests/s at p99 ≤ 100 ms from this service; 200/s per core (0.50 cores used); "
        "412 MB in 3 processes; 450 requests/s take 5 like it, 6 to be able to lose one."
    ]
    least = plan_capacity(found_capacity(made, part, used, blocked="the load generator"), 450.0)
    assert "at least 100 requests/s" in least[0]
    assert "take at most 5" in least[0]
    assert plan_capacity(found_capacity(made, part, used, rate=None), 450.0) == []


def test_the_highest_rate_that_held_is_said_when_none_was_confirmed(made: Make, part: Make, used: Make) -> None:
    found = found_capacity(made, part, used, rate=None, held_rate=1593.0, refused="why")
    assert "the highest rate that held was 1,593.0 requests/s" in summary(found, Exit.FAILED)


def test_only_locusts_own_process_imports_locust() -> None:
    importing = [
        path.name
        for path in (REPOSITORY / "loadtests").rglob("*.py")
        if any(line.startswith(("import locust", "from locust")) for line in path.read_text().splitlines())
    ]
    assert sorted(importing) == [LOCUSTFILE.name, "users.py"]
