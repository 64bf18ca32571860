"""The proofs of a certificate over whole nets: planted defects are refused, their sound twins exported and served."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import numpy_helper
from torch import Tensor, nn

from export.__main__ import installing, main
from export.artifact import write_artifact
from export.certify import (
    _next_version,
    artifact_folder,
    certify,
    certify_model,
    export_run,
    read_finished_run,
    torch_predictor,
)
from export.checks import (
    check_batch_invariance,
    check_batch_norm,
    check_parity,
    check_score,
    largest_difference,
    prediction_difference,
)
from export.convert import OPSET, example_feeds, run_torch, to_onnx
from models.artifact.device_certificate import UNMEASURED
from models.artifact.manifest import (
    ASSETS_KEY,
    MANIFEST_FILE,
    MODEL_FILE,
    Manifest,
    from_bytes,
    read_artifact,
    to_bytes,
)
from models.card import AnyCard, Assets, Feeds, Prediction
from models.errors import CertificateError
from models.image import CLASSIFY
from models.image.schema import Assets as ImageAssets
from models.image.schema import Instance as Picture
from models.image.train.net import ConvolutionConfig, ConvolutionNet
from models.paths import REPOSITORY
from models.runtime.device import has_cuda
from models.runtime.predictor import Predictor, open_predictor
from models.runtime.session import open_artifact
from models.tagging import TAG
from models.tagging.schema import Assets as TagAssets
from models.tagging.train.attention import MASKED, SentenceLayout, WordAttentionConfig
from models.tagging.train.net import TaggerConfig, TaggerNet
from models.train.__main__ import recipes, train
from models.training.datasets import ACCURACY, Provenance, ScoreMetric
from models.viewcount import FORECAST
from models.viewcount.schema import Assets as ViewAssets
from models.viewcount.train.data import ERROR
from models.viewcount.train.net import DenseConfig, DenseNet

VIEWS = ViewAssets()


class FakeData:
    """A test set of random requests; the truth is the first forecast of a net that says the level stays."""

    provenance = Provenance(name="random", licence="none", attribution="nobody", sha256={})

    def __init__(self, card: AnyCard, assets: Assets, metric: ScoreMetric = ERROR, count: int = 12) -> None:
        self.card, self.assets, self.metric, self.count = card, assets, metric, count

    def examples(self, split: str) -> Iterator[tuple[Any, Any]]:
        rng = np.random.default_rng(11)
        for number in range(self.count):
            yield self.card.random_request(rng, self.assets), number % 2

    def judge(self, predictions: Sequence[Prediction], truths: Sequence[Any]) -> float:
        if "forecast" in predictions[0]:
            return float(np.mean([p["forecast"][0] for p in predictions]))
        return 100 * float(np.mean([p.get("class_id") == truth for p, truth in zip(predictions, truths, strict=True)]))


def views_net(net: nn.Module | None = None) -> Any:
    torch.manual_seed(0)
    return (net or DenseNet(DenseConfig(layers=1, width=3, members=2), VIEWS)).eval()


VIEWS_DATA = FakeData(FORECAST, VIEWS)


@pytest.fixture(scope="module")
def sound() -> tuple[DenseNet, onnx.ModelProto]:
    """A small view-count net and its graph; exported once."""
    net = views_net()
    nn.init.normal_(net.last, std=0.1)
    net.lower_ratio -= 0.5
    net.upper_ratio += 0.5
    return net, to_onnx(net, FORECAST, VIEWS)


def copy(proto: onnx.ModelProto) -> onnx.ModelProto:
    again = onnx.ModelProto()
    again.CopyFrom(proto)
    return again


def largest_weight(proto: onnx.ModelProto) -> onnx.TensorProto:
    return max(proto.graph.initializer, key=lambda tensor: numpy_helper.to_array(tensor).size)


def change_weight(proto: onnx.ModelProto, change: Callable[[np.ndarray], np.ndarray]) -> onnx.ModelProto:
    again = copy(proto)
    tensor = largest_weight(again)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), tensor.name))
    return again


# Conversion


def test_graph_is_the_cards(sound: tuple[DenseNet, onnx.ModelProto]) -> None:
    """The graph has the card's names and axes, opset 20, the assets, and nothing of this machine."""
    _, proto = sound
    assert [part.version for part in proto.opset_import if part.domain == ""] == [OPSET]
    axes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*proto.graph.input, *proto.graph.output)
    }
    assert axes == {"views": ["batch", 56], **{key: ["batch", 28] for key in ("forecast", "lower", "upper")}}
    assert json.loads(proto.metadata_props[0].value) == {"window": 56, "horizon": 28, "coverage": 0.9}
    assert [part.key for part in proto.metadata_props] == [ASSETS_KEY]
    content = proto.SerializeToString()
    assert str(REPOSITORY).encode() not in content
    assert b".py" not in content


def test_feeds_are_repeatable() -> None:
    """The same seed gives the same feeds, another seed others."""
    one, same, other = (example_feeds(FORECAST, VIEWS, count=3, seed=seed)["views"] for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


# Parity


def test_sound_net(sound: tuple[DenseNet, onnx.ModelProto]) -> None:
    """A sound net gets its certificate: within tolerance, bit-identical, without changed labels."""
    net, proto = sound
    certificate = certify_model(proto, net, FORECAST, VIEWS_DATA)
    assert certificate.parity.max_abs_diff.keys() == {"forecast", "lower", "upper"}
    assert certificate.parity.instances == sum(certificate.parity.batches) == 111
    assert certificate.batch_invariance.bit_identical
    assert certificate.batch_norm.layers == 0
    assert certificate.score.label_changes == 0
    assert certificate.score.torch == pytest.approx(certificate.score.onnx, rel=1e-5)
    assert certificate.score.instances == 12


def test_other_weights(sound: tuple[DenseNet, onnx.ModelProto]) -> None:
    """A graph whose weights are a little off is refused with the difference and what is allowed."""
    net, proto = sound
    planted = change_weight(proto, lambda weights: weights * np.float32(1.01))
    with pytest.raises(
        CertificateError,
        match=r"^output 'forecast' of a batch of 1 differs from torch by \S+, "
        r"allowed are 0\.001 \+ 1e-05 \* \|torch\|$",
    ):
        certify_model(planted, net, FORECAST, VIEWS_DATA)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite(value: float, sound: tuple[DenseNet, onnx.ModelProto]) -> None:
    """A graph that gives NaN or infinity is refused as that, not as a difference."""
    net, proto = sound
    planted = change_weight(proto, lambda weights: np.full_like(weights, value))
    with pytest.raises(CertificateError, match=r"^output '\w+' is not finite$"):
        certify_model(planted, net, FORECAST, VIEWS_DATA)


def predictor_of(card: AnyCard, assets: Assets, run: Callable[[Feeds], dict[str, Any]], *outputs: str) -> Predictor:
    return Predictor(
        card=card,
        assets=assets,
        outputs=frozenset(outputs),
        run=lambda feeds, names: {name: run(feeds)[name] for name in names},
    )


@pytest.mark.parametrize(("shift", "is_fine"), [(0.0, True), (0.0009, True), (0.0011, False), (-0.0011, False)])
def test_tolerance_by_heart(shift: float, is_fine: bool) -> None:
    """Of a forecast of zero views a thousandth may be missing, and no more."""

    class Zero(nn.Module):
        def forward(self, views: Tensor) -> dict[str, Tensor]:
            return {"forecast": torch.zeros(len(views), 28)}

    def run(feeds: Feeds) -> dict[str, Any]:
        return {"forecast": np.full((len(feeds["views"]), 28), shift, np.float32)}

    predictor = predictor_of(FORECAST, VIEWS, run, "forecast")
    if is_fine:
        assert check_parity(Zero(), predictor).max_abs_diff["forecast"] == pytest.approx(abs(shift), rel=1e-6)
    else:
        with pytest.raises(CertificateError, match=r"differs from torch by 0\.0011"):
            check_parity(Zero(), predictor)


def test_late_batches_are_looked_at() -> None:
    """A difference only in the largest batch's last row is found."""

    class Zero(nn.Module):
        def forward(self, views: Tensor) -> dict[str, Tensor]:
            return {"forecast": torch.zeros(len(views), 28)}

    def run(feeds: Feeds) -> dict[str, Any]:
        found = np.zeros((len(feeds["views"]), 28), np.float32)
        found[63:] = 1.0
        return {"forecast": found}

    with pytest.raises(CertificateError, match="of a batch of 64 differs from torch by 1, "):
        check_parity(Zero(), predictor_of(FORECAST, VIEWS, run, "forecast"))


def test_largest_difference_by_heart() -> None:
    """The largest distance of two arrays; other shapes and what is not finite are refused."""
    one = np.array([1, 2, 3], np.float32)
    assert largest_difference("y", one, np.array([1, 2.5, 2.75], np.float32)) == 0.5
    assert largest_difference("y", one[:0], one[:0]) == 0.0
    with pytest.raises(CertificateError, match=r"^output 'y' has shape \(3,\), torch gives \(2,\)$"):
        largest_difference("y", one, one[:2])
    for wrong in (np.nan, np.inf, -np.inf):
        with pytest.raises(CertificateError, match=r"^output 'y' is not finite$"):
            largest_difference("y", one * wrong, one * wrong)


# Batch norm and batch invariance


class BatchMean(nn.Module):
    """A net that measures each channel by its batch, as an unfrozen batch norm written by hand."""

    def __init__(self, is_frozen: bool) -> None:
        super().__init__()
        self.is_frozen = is_frozen

    def forward(self, views: Tensor) -> dict[str, Tensor]:
        level = views[:, -28:].mean(1, keepdim=True)
        # Each row as a part of it: the same operators with and without the defect.
        base = level if self.is_frozen else (level + level.mean(0, keepdim=True)) / 2
        forecast = views[:, :28] * 0 + base
        return {"forecast": forecast, "lower": forecast * 0.5, "upper": forecast * 2}


@pytest.mark.parametrize("is_frozen", [True, False])
def test_statistics_of_the_batch(is_frozen: bool) -> None:
    """A net that answers by its batch passes parity and is refused for it; without the mean it is accepted."""
    net = BatchMean(is_frozen)
    if is_frozen:
        _, certificate = certify(net, FORECAST, VIEWS_DATA)
        assert certificate.batch_invariance.max_abs_diff == 0.0
    else:
        with pytest.raises(CertificateError, match=r"^an answer in company differs from the answer alone by [\d.e+]+$"):
            certify(net, FORECAST, VIEWS_DATA)


IMAGE_ASSETS = ImageAssets(classes=["a", "b"])


def picture_net() -> ConvolutionNet:
    torch.manual_seed(0)
    net = ConvolutionNet(ConvolutionConfig(widths=(2,)), IMAGE_ASSETS, 128.0, 64.0)
    for _ in range(3):
        net.logits(torch.randint(0, 256, (8, 1, 28, 28), dtype=torch.uint8))
    return net.eval()


def test_frozen_batch_norm() -> None:
    """A net with seen batch norms is certified, its frozen statistics by digest and what they are worth."""
    net = picture_net()
    proto, certificate = certify(net, CLASSIFY, FakeData(CLASSIFY, IMAGE_ASSETS, ACCURACY))
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    digest = hashlib.sha256(b"".join(n.running_mean.numpy().tobytes() + n.running_var.numpy().tobytes() for n in norms))  # type: ignore[union-attr]
    assert certificate.batch_norm.layers == 2
    assert certificate.batch_norm.statistics_sha256 == digest.hexdigest()
    assert certificate.batch_norm.shift_if_unfrozen is not None
    assert certificate.batch_norm.shift_if_unfrozen > 1e-4
    assert not {"BatchNormalization", "Dropout"} & {node.op_type for node in proto.graph.node}
    assert all(norm.training is False for norm in norms)


@pytest.mark.parametrize("plant", ["none kept", "none seen"])
def test_no_statistics_to_freeze(plant: str) -> None:
    """A batch norm without running statistics, or that has seen no batch, is refused."""
    net = picture_net()
    check_batch_norm(net, CLASSIFY, IMAGE_ASSETS)
    fresh = nn.BatchNorm2d(2, track_running_stats=plant == "none seen").eval()
    net.features[1] = fresh
    with pytest.raises(CertificateError, match=r"^a batch-norm layer has no running statistics to freeze$"):
        check_batch_norm(net, CLASSIFY, IMAGE_ASSETS)


def test_exported_in_training_mode() -> None:
    """A net that refuses to leave training mode is refused: its graph answers otherwise than the net."""

    class Stubborn(ConvolutionNet):
        def train(self, mode: bool = True) -> "Stubborn":
            super().train(True)
            self.dropout.eval()
            return self

    torch.manual_seed(0)
    net = Stubborn(ConvolutionConfig(widths=(2,)), IMAGE_ASSETS, 128.0, 64.0)
    with pytest.raises(CertificateError, match=r"^output 'scores' of a batch of 1 differs from torch"):
        certify(net, CLASSIFY, FakeData(CLASSIFY, IMAGE_ASSETS, ACCURACY))


TAG_ASSETS = TagAssets(words=["a", "i", "saw"], clues=["4:w", "9:X"], tags=["DET", "NOUN"], layers=1, heads=2)
TAGGER = TaggerConfig(embedding=4, width=8, layers=1, attention=WordAttentionConfig(heads=2, reach=2))


class Maskless(TaggerNet):
    """A tagger that lets words look at the padding."""

    def arrange(self, grid: Tensor, keep: Tensor, back: Tensor) -> SentenceLayout:
        return super().arrange(grid, keep | True, back)


def without_mask(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the same graph, with 0 where padding got -1e9: what exporting a net without its mask gives."""
    planted = copy(proto)
    masks = [t for t in planted.graph.initializer if np.array_equal(numpy_helper.to_array(t), np.float32(MASKED))]
    nodes = [node for node in planted.graph.node if node.op_type == "Constant"]
    masks += [
        a.t for node in nodes for a in node.attribute if np.array_equal(numpy_helper.to_array(a.t), np.float32(MASKED))
    ]
    assert len(masks) == 1
    masks[0].CopyFrom(numpy_helper.from_array(np.float32(0), masks[0].name))
    return planted


def test_dropped_padding_mask() -> None:
    """A tagger whose padding mask is dropped is refused, since a word's tags depend on longer batch-mates."""
    torch.manual_seed(0)
    net, data = TaggerNet(TAGGER, TAG_ASSETS, fine_tags=3), FakeData(TAG, TAG_ASSETS, ACCURACY)
    proto, certificate = certify(net, TAG, data)
    assert certificate.batch_invariance.bit_identical
    maskless = Maskless(TAGGER, TAG_ASSETS, fine_tags=3).eval()
    maskless.load_state_dict(net.state_dict())
    # Torch has dropped it too: parity holds, so that only the company tells.
    with pytest.raises(CertificateError, match=r"^an answer in company differs from the answer alone by [\d.e-]+$"):
        certify_model(without_mask(proto), maskless, TAG, data)


def test_order_of_answers() -> None:
    """Answers that are right but in another order are no answers."""

    def run(feeds: Feeds) -> dict[str, Any]:
        level = feeds["views"][::-1, -28:]
        return {"forecast": level, "lower": level, "upper": level}

    with pytest.raises(CertificateError, match="an answer in company"):
        check_batch_invariance(predictor_of(FORECAST, VIEWS, run, "forecast", "lower", "upper"))


@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [
        ({"a": np.ones(2), "b": "x"}, {"a": np.ones(2), "b": "x"}, 0.0),
        ({"a": np.ones(2)}, {"a": np.array([1, 1.5])}, 0.5),
        ({"a": 0.25}, {"a": 0.5}, 0.25),
        ({"a": {"b": np.zeros(1)}}, {"a": {"b": np.full(1, 3.0)}}, 3.0),
        ({"a": "x"}, {"a": "y"}, np.inf),
        ({"a": ["x", "y"]}, {"a": ["y", "x"]}, np.inf),
        ({"a": 1}, {"a": 2}, np.inf),
        ({"a": 1}, {"b": 1}, np.inf),
        ({"a": np.ones(2)}, {"a": np.ones(3)}, np.inf),
        ({"a": np.zeros(0)}, {"a": np.zeros(0)}, 0.0),
        ({"a": np.float32(2**-149)}, {"a": np.float32(0)}, 2.0**-149),
    ],
)
def test_prediction_difference_by_heart(one: Any, other: Any, difference: float) -> None:
    """Numbers differ by their distance; words, keys and shapes by everything."""
    assert prediction_difference(one, other) == difference


# The score


def judged(*rows: Sequence[float]) -> Predictor:
    """Return a predictor that gives these scores to whatever pictures."""

    def run(feeds: Feeds) -> dict[str, Any]:
        return {"scores": np.resize(np.asarray(rows, np.float32), (len(feeds["pixels"]), 2))}

    return predictor_of(CLASSIFY, IMAGE_ASSETS, run, "scores")


class Pictures(FakeData):
    def examples(self, split: str) -> Iterator[tuple[Any, Any]]:
        assert split == "test"
        for number in range(4):
            yield Picture(pixels=[[number] * 28] * 28), number % 2


PICTURES = Pictures(CLASSIFY, IMAGE_ASSETS, ACCURACY)


def test_score_by_heart() -> None:
    """The test set through both: three quarters right before and after."""
    before = judged([0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3])
    after = judged([0.8, 0.2], [0.3, 0.7], [0.9, 0.1], [0.6, 0.4])
    found = check_score(PICTURES, before, after)
    assert (found.torch, found.onnx, found.instances, found.label_changes) == (75.0, 75.0, 4, 0)


def test_changed_labels() -> None:
    """Labels that change are refused, even when as many get right as wrong."""
    before = judged([0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.9, 0.1])
    after = judged([0.1, 0.9], [0.1, 0.9], [0.9, 0.1], [0.9, 0.1])
    with pytest.raises(CertificateError, match=r"^2 of 4 test answers changed their label$"):
        check_score(PICTURES, before, after)


def test_moved_score() -> None:
    """A score that moves without a label is refused with both values."""

    def level(factor: float) -> Predictor:
        def run(feeds: Feeds) -> dict[str, Any]:
            return {"forecast": np.full((len(feeds["views"]), 28), 100.0 * factor)}

        return predictor_of(FORECAST, VIEWS, run, "forecast")

    card = replace(FORECAST, decode=lambda outputs, samples, assets: [{"forecast": row} for row in outputs["forecast"]])
    one, same, other = (replace(level(factor), card=card) for factor in (1.0, 1.0 + 1e-7, 1.001))
    assert check_score(VIEWS_DATA, one, same).label_changes == 0
    with pytest.raises(CertificateError, match=r"^the test mean absolute error moved from 100\.0 to 100\.\d+$"):
        check_score(VIEWS_DATA, one, other)


# From a run to an artifact


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run over a user's own CSV."""
    folder = tmp_path_factory.mktemp("runs")
    path = folder / "views.csv"
    rows = [f"{date(2024, 1, 1) + timedelta(days=day)},{1000 + 37 * (day % 7)}" for day in range(256)]
    path.write_text("\n".join(["date,views", *rows]) + "\n")
    recipe = recipes("viewcount")["viewcount"]
    recipe = replace(recipe, plan=replace(recipe.plan, epochs=1))
    train(recipe, "my-channel", data=path, seed=3, runs=folder, quiet=True)
    torch.use_deterministic_algorithms(False)
    return folder


@pytest.fixture(scope="module")
def exported(finished: Path) -> Path:
    """The artifact of the run."""
    folder = export_run("my-channel", None, runs=finished, target=finished / "artifact")
    torch.use_deterministic_algorithms(False)
    return folder


def test_export_and_open(exported: Path, finished: Path) -> None:
    """A user's run becomes an artifact that opens, says where it comes from, and answers as torch does."""
    session = open_artifact(exported)
    manifest, predictor = session.manifest, open_predictor(session)
    assert manifest.tag == "my-channel:1.0.0"
    assert manifest.training.data["name"] == "views.csv"
    assert (manifest.training.seed, manifest.training.epochs) == (3, 1)
    assert manifest.training.report["interval"]["nominal"] == 0.9
    assert manifest.device is not None
    assert (manifest.device == UNMEASURED) is not has_cuda()
    assert sorted(path.name for path in exported.iterdir()) == [MANIFEST_FILE, MODEL_FILE]
    recipe, path, _ = read_finished_run(finished / "my-channel")
    learner: Any = recipe.learner(recipe, path, 3)
    learner.net.load_state_dict(torch.load(finished / "my-channel" / "final.pt", weights_only=True))
    by_torch = torch_predictor(learner.net.eval(), FORECAST, learner.data)
    requests = [FORECAST.random_request(np.random.default_rng(seed), VIEWS) for seed in range(20)]
    for one, other in zip(predictor.predict(requests), by_torch.predict(requests), strict=True):
        for name in ("forecast", "lower", "upper"):
            np.testing.assert_allclose(one[name], other[name], atol=1e-3, rtol=1e-5)


def test_versions(exported: Path, tmp_path: Path) -> None:
    """1.0.0 at first, the same for the same bytes, one more for others."""
    manifest, content = read_artifact(exported)
    assert _next_version(tmp_path, content) == "1.0.0"
    write_artifact(tmp_path, manifest, content)
    assert _next_version(tmp_path, content) == "1.0.0"
    assert _next_version(tmp_path, content + b"x") == "1.0.1"
    (tmp_path / MANIFEST_FILE).write_bytes(to_bytes(replaced(manifest, version="2.7.9")))
    assert _next_version(tmp_path, content + b"x") == "2.7.10"
    assert _next_version(tmp_path, content) == "2.7.9"


def replaced(manifest: Manifest, **changes: Any) -> Manifest:
    return msgspec.structs.replace(manifest, **changes)


def test_write_again(exported: Path, tmp_path: Path) -> None:
    """An artifact is written whole over an older one, without leaving anything else."""
    manifest, content = read_artifact(exported)
    write_artifact(tmp_path / "a" / "b", manifest, content)
    write_artifact(tmp_path / "a" / "b", manifest, content)
    assert read_artifact(tmp_path / "a" / "b") == (from_bytes(to_bytes(manifest), ""), content)
    assert len(list((tmp_path / "a" / "b").iterdir())) == 2


def test_refused_exports_write_nothing(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose proof fails leaves no artifact."""

    def refuse(*arguments: Any, **options: Any) -> None:
        raise CertificateError("planted")

    monkeypatch.setattr("export.certify.certify", refuse)
    with pytest.raises(CertificateError, match="planted"):
        export_run("my-channel", None, runs=finished, target=tmp_path / "out")
    torch.use_deterministic_algorithms(False)
    assert not (tmp_path / "out").exists()


def test_how_to_install(exported: Path, shipped_folder: Callable[[str], Path]) -> None:
    """After an export, the command is told that puts the artifact into the store, wherever it was written."""
    assert installing(exported) == f".venv/bin/python -m export install {exported}"
    assert installing(shipped_folder("viewcount")).startswith("make install")


def test_unfinished_run(tmp_path: Path) -> None:
    """A run that is missing or was stopped says what to do."""
    with pytest.raises(CertificateError) as caught:
        export_run("nothing", None, runs=tmp_path)
    assert str(caught.value) == f"{tmp_path / 'nothing'}: no finished run; train first: make train MODEL=nothing"


def test_stopped_run(finished: Path, tmp_path: Path) -> None:
    """A run that was stopped says what to type; ended with what it has, its certificate says so."""
    copy = tmp_path / "my-channel"
    shutil.copytree(finished / "my-channel", copy)
    report = json.loads((copy / "result.json").read_text())
    (copy / "result.json").unlink()
    with pytest.raises(CertificateError, match=r"python -m models.train --model my-channel --finish$"):
        export_run("my-channel", None, runs=tmp_path)
    assert len(report.pop("trained")) == len("2026-03-04")
    ended = {"epochs": 1, "of": 25, "half": "on training data", "kept": "what was best"}
    (copy / "result.json").write_text(json.dumps(report | {"ended": ended}))
    folder = export_run("my-channel", None, runs=tmp_path, target=tmp_path / "artifact")
    torch.use_deterministic_algorithms(False)
    assert read_artifact(folder)[0].training.report["ended"] == ended
    assert read_artifact(folder)[0].training.trained is msgspec.UNSET  # a run from before the day was written down
    result = CliRunner().invoke(main, ["inspect", str(folder)])
    assert "ended             after 1 of 25 epochs on training data: what was best ships\n" in result.output


def test_same_net_same_bytes(exported: Path, finished: Path) -> None:
    """Exporting again gives the same graph, byte for byte, and so the same version."""
    before = read_artifact(exported)
    told = json.loads((finished / "my-channel" / "result.json").read_text())["trained"]
    assert before[0].training.trained == date.fromisoformat(told)
    export_run("my-channel", None, runs=finished, target=exported)
    torch.use_deterministic_algorithms(False)
    after = read_artifact(exported)
    assert (after[1], after[0].version) == (before[1], "1.0.0")


def test_command_line(exported: Path) -> None:
    """The command line inspects, and turns refusals into one line and exit status 1."""
    result = CliRunner().invoke(main, ["inspect", "molecule"])
    assert result.exit_code == 0
    assert result.output.startswith("molecule:")
    assert "batch invariance  192 requests" in result.output
    for arguments, message in (
        (["model", "no-such-run"], "no finished run; train first: make train MODEL=no-such-run"),
        (["inspect", "no-such-model"], "no artifact 'no-such-model' in models/*/trained"),
        (["install", str(exported.parent)], f"{MANIFEST_FILE} cannot be read: No such file or directory"),
    ):
        result = CliRunner().invoke(main, arguments)
        assert (result.exit_code, result.output.count("\n")) == (1, 1), result.output
        assert message in result.output


def test_artifacts_lie_in_their_family() -> None:
    """Exports go where the repository keeps what ships."""
    assert artifact_folder("image", "image-vit") == REPOSITORY / "models/image/trained/image-vit"


def test_run_torch() -> None:
    """The net is run in whatever mode it is, with the card's inputs in order."""

    class Order(nn.Module):
        def forward(self, views: Tensor) -> dict[str, Tensor]:
            return {"forecast": views[:, :28] * (2 if self.training else 1)}

    feeds = {"views": np.ones((1, 56), np.float32)}
    assert run_torch(Order(), FORECAST, feeds)["forecast"][0, 0] == 2
    assert run_torch(Order().eval(), FORECAST, feeds)["forecast"][0, 0] == 1
