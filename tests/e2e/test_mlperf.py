"""LoadGen against the real service."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from loadtests.mlperf import compliance
from loadtests.mlperf.command import mlperf
from models.graph.train.molecule_data import MUTAG
from models.training.datasets import is_local
from tests.e2e.conftest import Server

pytest.importorskip("mlperf_loadgen", reason="mlcommons-loadgen has no wheel for this machine")
pytestmark = pytest.mark.slow


def test_offline_is_valid_and_right(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """VALID in brief; as good as the certificate; and no answer depends on whether it is timed, or on its company.

    Whether speeds are within a tenth of each other is not asked of a machine on which tests run.
    """
    monkeypatch.setattr(compliance, "ROUNDS", 1)
    words = ["--host", server.url, "--model", "molecule", "--scenario", "Offline", "--seconds", "1"]
    done = CliRunner().invoke(mlperf, [*words, "--out", str(tmp_path)])
    assert (tmp_path / "mlperf.json").is_file(), done.output
    (report,) = json.loads((tmp_path / "mlperf.json").read_text())
    (row,) = report["rows"]
    assert row["outcome"]["is_valid"], row["outcome"]["reasons"]
    assert row["outcome"]["settings"]["sample_concatenate_permutation"] is True, "molecules cost differently"
    answers, caching = row["verdicts"]
    assert answers["compared"] > 100
    assert answers["different"] == 0
    assert caching["ratios"].keys() == {"again"}
    if is_local(MUTAG):
        assert report["accuracy"]["found"] == pytest.approx(report["accuracy"]["certified"], abs=1e-3)
