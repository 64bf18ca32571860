import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from loadtests.mlperf.command import mlperf
from loadtests.mlperf.served import Address
from loadtests.objectives import read_objectives
from models.viewcount.train.data import OTEXTS, load
from tests.loadtests.mlperf.stub import Stub

pytestmark = [
    pytest.mark.slow,
    pytest.mark.data(OTEXTS),
]
Start = Callable[[Stub], Address]


@pytest.fixture
def certified() -> float:
    """The score of "tomorrow is like today" on the test days."""
    data = load()
    requests, truths = zip(*data.examples("test"), strict=True)
    return data.judge([{"forecast": [request.views[-1]]} for request in requests], truths)


def command(address: Address, out: Path, *more: str) -> Result:
    words = ["--host", f"http://{address.host}:{address.port}", "--seconds", "0.3", "--out", str(out), *more]
    return CliRunner().invoke(mlperf, words)


def test_right_answers_end_well(start: Start, tmp_path: Path, certified: float) -> None:
    """One scenario in a third of a second, written with what it ran with."""
    address = start(Stub(delay=0.001, certified=certified))
    done = command(address, tmp_path, "--scenario", "SingleStream", "--no-compliance")
    assert done.exit_code == 0, done.output
    (report,) = json.loads((tmp_path / "mlperf.json").read_text())
    assert report["accuracy"]["found"] == pytest.approx(certified, rel=1e-6)
    assert report["samples"] == 365
    (row,) = report["rows"]
    assert row["outcome"]["is_valid"]
    assert row["outcome"]["settings"]["min_duration_ms"] == 300
    assert row["bound_ms"] == read_objectives().of(["viewcount"]).p99_ms
    assert report["machine"]["cpu"]
    page = (tmp_path / "mlperf.md").read_text()
    assert "| viewcount | SingleStream | VALID |" in page
    assert "| yes |" in page


def test_wrong_answers_end_badly(start: Start, tmp_path: Path, certified: float) -> None:
    """The control: one forecast of ten is zero, and the mean error leaves 99 % of the certificate."""
    address = start(Stub(delay=0.001, wrong=10, certified=certified))
    done = command(address, tmp_path, "--scenario", "SingleStream", "--no-compliance")
    assert done.exit_code == 1
    assert "viewcount: accuracy is below 99% of the certificate" in done.output
    (report,) = json.loads((tmp_path / "mlperf.json").read_text())
    assert report["accuracy"]["found"] > certified / 0.99
    assert report["rows"][0]["outcome"]["is_valid"], "speed is not what was wrong"


def test_a_rate_that_is_too_high_ends_badly(start: Start, tmp_path: Path, certified: float) -> None:
    """A bound that the service cannot hold: INVALID, and status 1."""
    address = start(Stub(delay=0.02, certified=certified))
    words = ("--scenario", "Server", "--qps", "2000", "--bound-ms", "10", "--no-compliance")
    done = command(address, tmp_path, *words)
    assert done.exit_code == 1
    assert "viewcount Server: Reduce target QPS to improve latency." in done.output


def test_an_unknown_model_is_named(start: Start, tmp_path: Path) -> None:
    done = command(start(Stub()), tmp_path, "--model", "nobody")
    assert done.exit_code == 2
    assert "nobody: the service has viewcount" in done.output
