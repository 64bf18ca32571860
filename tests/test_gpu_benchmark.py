"""The benchmark of the GPU, with the CPU as the device: its rows, its rivals, its null model, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.gpu import __main__, rows, served
from benchmarks.gpu.rows import GpuPace, GpuRow, Scope
from benchmarks.gpu.torch_baseline import best_seconds, net_of, runs_of
from benchmarks.harness.servers import ask, install_artifacts
from export.convert import example_feeds
from export.store import shipped_folders
from models.errors import CertificateError, DataError
from models.runtime.device import Compute, Padding, has_cuda
from models.runtime.predictor import open_predictor
from models.runtime.session import Session, open_artifact

Open = Callable[[str], Session]
NAMES = [folder.name for folder in shipped_folders()]
UNWRITTEN = ("CUDA graphs", "IO binding", "reduced precision")


def scope(**changes: Any) -> Scope:
    known = {"device": "cpu", "models": ("viewcount",), "seconds": 0.5, "has_test_set": False, "has_server": False}
    return Scope(**known | changes)


def test_small_run(tmp_path: Path) -> None:
    """One command to the table and its figures; what was not run says so, and why."""
    wanted = ["--device", "cpu", "--models", "viewcount", "--without-test-set", "--without-server"]
    done = CliRunner().invoke(__main__.main, [*wanted, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    page = (tmp_path / "gpu.md").read_text()
    assert [row["what"] for row in rows if row["what"] not in page] == []
    assert rows[0]["found"].startswith("1 of 1 proved, ")
    assert "batch 8: " in rows[1]["details"][1]
    for words in UNWRITTEN:
        (row,) = [row for row in rows if words in row["what"]]
        assert row["found"].startswith("not run: not written")
        assert any(line.startswith("not run") and words in line for line in done.output.splitlines())


@pytest.mark.skipif(has_cuda(), reason="this machine has a GPU")
def test_without_a_gpu() -> None:
    """One clear line, and nothing is written; figures of a CPU do not land among the results."""
    done = CliRunner().invoke(__main__.main, [])
    assert (done.exit_code, done.output) == (1, f"Error: {__main__.NO_GPU}\n")
    assert CliRunner().invoke(__main__.main, ["--device", "cpu"]).exit_code == 2
    assert not (__main__.RESULTS / "gpu.json").exists()


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (GpuRow(what="w", bar="b", found="not run: why"), "not run"),
        (GpuRow(what="w", bar="b", found="much"), "told"),
        (GpuRow(what="w", bar="b", found="much", is_met=True), "kept"),
        (GpuRow(what="w", bar="b", found="little", is_met=False), "missed"),
    ],
)
def test_verdicts(row: GpuRow, verdict: str) -> None:
    """A row without a finding is never kept."""
    assert row.verdict == verdict


def test_a_model_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: a proof that fails on a GPU makes the row missed, and the other models are still tried."""

    def fail(manifest: Any, *_: Any, **__: Any) -> Any:
        raise CertificateError("another each time")

    monkeypatch.setattr(rows, "certify_device", fail)
    (row,) = rows.proofs(scope(device="cuda", models=("viewcount", "image")))
    assert (row.is_met, row.verdict) == (False, "missed")
    assert row.found.startswith("0 of 2 proved")
    assert len(row.details) == 2
    assert row.details[0].endswith("another each time")


def test_a_test_set_that_is_not_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, the other proofs are made, and the row is not kept."""

    def absent(manifest: Any, path: Any) -> Any:
        raise DataError("x.csv", found="no network", expected="a file")

    monkeypatch.setattr(rows, "data_of", absent)
    (row,) = rows.proofs(scope(has_test_set=True))
    assert (row.is_met, row.found.endswith("not run on the test sets")) == (None, True)
    assert "its test set is not at hand" in row.details[0]
    assert row.details[1].startswith("viewcount:")


def test_who_is_ahead() -> None:
    """A rival as fast is one that we are not ahead of; one that failed is told."""
    pace = GpuPace(
        model="m", size=8, ours=10.0, rivals={"eager": 9.0, "compile": 10.0}, failures={"other": "no compiler"}
    )
    assert pace.ahead() == ["compile"]
    assert str(pace).startswith(
        "m, batch 8: 10 a second; torch eager 9 (1.11x), torch compile 10 (1.00x), torch other "
    )
    assert str(pace).endswith("other failed: no compiler")


@pytest.mark.parametrize("name", NAMES)
def test_rivals_are_as_large_as_the_models(name: str, shipped_session: Open) -> None:
    """Torch's net has the parameters of the one that was trained, and takes and gives what the session does."""
    session = shipped_session(name)
    net = net_of(session.manifest, session.assets)
    count = sum(part.numel() for part in net.parameters())
    assert count == pytest.approx(session.manifest.training.parameters, rel=0.01)
    feeds = example_feeds(session.card, session.assets, count=3, seed=0)
    found = runs_of(net, session.card, "cpu", compiles=False)["eager"](feeds)
    wanted = session.run(feeds, sorted(session.manifest.output_names))
    assert {key: found[key].shape for key in wanted} == {key: value.shape for key, value in wanted.items()}


def test_best_seconds() -> None:
    """At least three calls are timed, after two to warm up."""
    calls: list[int] = []
    assert best_seconds(lambda: calls.append(1), 0.0) < 0.1
    assert len(calls) == 5


def test_null_model(shipped_folder: Any, tmp_path: Path) -> None:
    """It opens as any artifact, on filled-up batches too, answers every picture alike, and sees none of them."""
    served.null_artifact(shipped_folder("image-vit"), tmp_path)
    for padding in Padding:
        predictor = open_predictor(open_artifact(tmp_path, Compute(padding=padding)))
        rng = np.random.default_rng(0)
        found = predictor.predict([predictor.card.random_request(rng, predictor.assets) for _ in range(5)])
        assert {answer["score"] for answer in found} == {np.float32(0.1)}
        assert len(found) == 5


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_served_rows(tmp_path: Path) -> None:
    """The rows that need a running service, small: real servers, real clients, no error."""
    rest, first = rows.served(scope(has_server=True), tmp_path)
    assert "of the null model's" in rest.found
    assert ", 0 errors, device idle " in rest.found
    assert first.found.endswith("x at worst")
    if not has_cuda():
        (row,) = rows.no_gpu(scope(has_server=True), tmp_path)
        assert (row.verdict, "auto serves on the CPU" in row.found) == ("kept", True)


@pytest.mark.e2e
@pytest.mark.timeout(120)
def test_load_counts_what_is_no_answer(shipped_folder: Any, tmp_path: Path) -> None:
    """Control: a model that is not served gives errors, not a rate of good answers."""
    install_artifacts(tmp_path, shipped_folder("viewcount"))
    with served.serving(tmp_path, LECTERN_MODELS="viewcount") as port:
        call = served.picture_call("image-vit")
        assert ask(port, call)[0] == 404
        assert served.load(port, call, connections=2, clients=2, seconds=0.3).errors > 0
        with pytest.raises(served.Unavailable, match=r"^status 404"):
            served.first_request(port, call, 1)
