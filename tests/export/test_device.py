"""The certificate on a device, with the CPU as the device: planted defects are refused, their sound twins pass."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

from export.__main__ import main
from export.certify import with_device
from export.device import CLEARLY, add_device, certify_device, choose, compute_of
from export.device_checks import (
    REPEATS,
    check_company,
    check_float64,
    check_repeats,
    check_test_set,
    count_random_changes,
    numbers,
)
from export.reference import graph_float64, torch_float64
from models.artifact.device_certificate import UNMEASURED, DevicePlacement, DeviceProof, Timing
from models.artifact.manifest import from_bytes, read_artifact, to_bytes
from models.card import Array, Feeds
from models.errors import CertificateError, DeviceError
from models.image import CLASSIFY
from models.image.schema import Assets as ImageAssets
from models.image.train.net import ConvolutionConfig, ConvolutionNet
from models.runtime.device import CPU_PROVIDER, CUDA_PROVIDER, has_cuda
from models.runtime.predictor import Predictor
from models.training.datasets import ACCURACY

Open = Callable[[str], Predictor]
Folder = Callable[[str], Path]


def spoiled(predictor: Predictor, spoil: Callable[[str, Array], Array]) -> Predictor:
    """Return the same predictor with something done to each output."""

    def run(feeds: Feeds, names: list[str]) -> dict[str, Array]:
        return {name: spoil(name, values) for name, values in predictor.run(feeds, names).items()}

    return replace(predictor, run=run)


def reference_of(folder: Path) -> Any:
    return graph_float64((folder / "model.onnx").read_bytes())


class RandomData:
    """A test set of random requests."""

    metric = ACCURACY

    def __init__(self, predictor: Predictor) -> None:
        rng = np.random.default_rng(0)
        self.requests = [predictor.card.random_request(rng, predictor.assets) for _ in range(12)]

    def examples(self, split: str) -> Any:
        assert split == "test"
        return iter([(request, None) for request in self.requests])


# Against float64


@pytest.mark.parametrize("name", ["viewcount", "molecule"])
def test_float64(name: str, shipped: Open, shipped_folder: Folder) -> None:
    """A sound model is within its card's tolerance of the float64 graph, and not equal to it: the oracle is another."""
    predictor = shipped(name)
    found = check_float64(predictor, reference_of(shipped_folder(name)), predictor.card.tolerance)
    assert found.keys() == predictor.outputs
    assert all(0.0 < difference < 2.0 for difference in found.values())


def test_a_parity_error_is_refused(shipped: Open, shipped_folder: Folder) -> None:
    """Control: one output a ten-thousandth off, as TF32 makes it, is refused; without a tolerance it is measured."""
    predictor = shipped("molecule")
    reference = reference_of(shipped_folder("molecule"))
    wrong = spoiled(predictor, lambda name, values: values + np.float32(1e-3) if name == "scores" else values)
    with pytest.raises(CertificateError, match=r"^output 'scores' of a batch of 1 differs from float64 by 0\.001"):
        check_float64(wrong, reference, predictor.card.tolerance)
    assert check_float64(wrong, reference, None)["scores"] == pytest.approx(1e-3, rel=0.01)
    absent = spoiled(predictor, lambda name, values: values * np.nan)
    with pytest.raises(CertificateError, match=r"is not finite$"):
        check_float64(absent, reference, None)


def test_a_changed_weight_is_refused(shipped: Open, shipped_folder: Folder) -> None:
    """Control: the reference of other weights, one of them changed by a hundredth, is not this model's."""
    model = onnx.load(shipped_folder("molecule") / "model.onnx")
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "readout.classifier.bias")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32([0.01, 0]), bias.name))
    predictor = shipped("molecule")
    with pytest.raises(CertificateError, match="differs from float64"):
        check_float64(predictor, graph_float64(model.SerializeToString()), predictor.card.tolerance)


def test_torch_in_float64() -> None:
    """The net is widened, not its double: it stays in float32, and batch norm stays frozen."""
    assets = ImageAssets(classes=["a", "b"], channels=1, height=8, width=8)
    net = ConvolutionNet(ConvolutionConfig(widths=(4, 8)), assets, 127.0, 50.0)
    run = torch_float64(net.train(), CLASSIFY)
    feeds = {"pixels": np.random.default_rng(0).integers(0, 256, (3, 1, 8, 8)).astype(np.uint8)}
    scores = run(feeds, ["scores"])["scores"]
    assert scores.dtype == np.float64
    assert next(net.parameters()).dtype.itemsize == 4
    assert scores.tobytes() == run(feeds, ["scores"])["scores"].tobytes()
    alone = run({"pixels": feeds["pixels"][:1]}, ["scores"])["scores"]
    np.testing.assert_allclose(alone, scores[:1], atol=1e-12)


# Again and again, alone and in company


def test_repeats(shipped: Open) -> None:
    """On the CPU a model comes to the same bits each time."""
    predictor = shipped("viewcount")
    assert check_repeats(predictor, ["Gemm"], predictor.card.tolerance)


def test_other_bits_each_time(shipped: Open) -> None:
    """Control: noise in the last bits is refused, but where sums have no order it is told; more than that never is."""
    predictor, rng = shipped("molecule"), np.random.default_rng(0)
    noisy = spoiled(
        predictor, lambda name, values: values * (1 + rng.choice([0, 2e-7], values.shape)).astype(np.float32)
    )
    with pytest.raises(CertificateError, match=r"^the same micro-batch comes to other bits each time$"):
        check_repeats(noisy, ["Gemm"], predictor.card.tolerance)
    assert check_repeats(noisy, ["ScatterND"], predictor.card.tolerance) is False
    wild = spoiled(predictor, lambda name, values: values + rng.random(values.shape).astype(np.float32))
    with pytest.raises(CertificateError, match=r"is another each time$"):
        check_repeats(wild, ["ScatterND"], predictor.card.tolerance)


@pytest.mark.parametrize("name", ["viewcount", "molecule"])
def test_company(name: str, shipped: Open) -> None:
    """On the CPU company changes nothing."""
    predictor = shipped(name)
    assert check_company(predictor, predictor.card.tolerance) == (37, 0.0)


def test_a_model_that_looks_at_its_batch_is_refused(shipped: Open) -> None:
    """Control: normalised over the batch, as batch norm in training mode is, answers move with their company."""
    predictor = shipped("molecule")
    leaky = spoiled(
        predictor, lambda name, values: values + np.float32(0.01) * values.mean(0) if name == "scores" else values
    )
    with pytest.raises(CertificateError, match=r"^an answer in company "):
        check_company(leaky, predictor.card.tolerance)
    flipped = spoiled(
        predictor, lambda name, values: values[:, ::-1] if name == "scores" and len(values) > 1 else values
    )
    with pytest.raises(CertificateError, match=r"^an answer in company has another label than alone$"):
        check_company(flipped, predictor.card.tolerance)


def test_test_set(shipped: Open) -> None:
    """Every test answer keeps its label and its numbers; one that does not is counted."""
    predictor = shipped("molecule")
    data: Any = RandomData(predictor)
    assert check_test_set(data, predictor, predictor) == 12
    flipped = spoiled(predictor, lambda name, values: values[:, ::-1] if name == "scores" else values)
    with pytest.raises(CertificateError, match=r"^12 of 12 test answers changed their label on the device$"):
        check_test_set(data, predictor, flipped)
    shifted = spoiled(predictor, lambda name, values: values + np.float32(1e-3) if name == "scores" else values)
    with pytest.raises(CertificateError, match=r"^12 of 12 test answers are too far from the CPU's$"):
        check_test_set(data, predictor, shifted)
    assert (count_random_changes(predictor, predictor), count_random_changes(predictor, flipped)) == (0, 48)


def test_numbers() -> None:
    """A prediction's numbers by their keys' order, without words and nested parts."""
    assert numbers({"b": np.float32([1, 2]), "a": 3.0, "label": "x", "n": {"c": 4.0}}).tolist() == [3.0, 1.0, 2.0]
    assert numbers({"label": "x"}).size == 0


# Which device


def proof(provider: str = CUDA_PROVIDER, **changes: Any) -> DeviceProof:
    found = DeviceProof(
        provider=provider,
        device="a GPU",
        versions={},
        options={},
        buckets={"batch": [1, 2]},
        nodes={provider: 3},
        size_nodes=0,
        reference="torch",
        parity={"scores": 1e-7},
        tf32_parity=None,
        tf32_label_changes=None,
        repeats=REPEATS,
        is_repeatable=True,
        companies=37,
        company_max_abs_diff=0.0,
        test_instances=0,
        test_label_changes=0,
    )
    return msgspec.structs.replace(found, **changes)


@pytest.mark.parametrize(
    ("device_seconds", "provider", "chosen"),
    [
        (0.5, CUDA_PROVIDER, "cuda"),
        (CLEARLY, CUDA_PROVIDER, "cpu"),
        (2.0, CUDA_PROVIDER, "cpu"),
        (0.5, CPU_PROVIDER, None),
    ],
)
def test_the_faster_device_is_chosen(device_seconds: float, provider: str, chosen: str | None) -> None:
    """By the largest batch, clearly; a lone instance decides nothing, and no GPU chooses nothing."""
    timings = [
        Timing(instances=64, cpu_seconds=1.0, device_seconds=device_seconds),
        Timing(instances=1, cpu_seconds=0.001, device_seconds=0.1),
    ]
    found = choose(timings, proof(provider))
    assert found.chosen == chosen
    assert "64 instances take 1e+03 ms on the CPU" in found.reason
    assert found.reason.startswith("no GPU was measured") is (chosen is None)


@pytest.fixture
def artifact(shipped_folder: Folder, tmp_path: Path) -> Path:
    """A copy of a shipped artifact."""
    return Path(copytree(shipped_folder("molecule"), tmp_path / "molecule"))


def test_written_into_the_manifest(artifact: Path) -> None:
    """What was proved on a GPU is kept under a new digest; the bytes of artifacts without it stay as they were."""
    before, content = read_artifact(artifact)
    assert before.device is None
    assert b'"device"' not in to_bytes(before)
    choice = choose([Timing(instances=9, cpu_seconds=2.0, device_seconds=1.0)], proof())
    after = add_device(artifact, choice)
    assert after.device == choice
    assert after.digest != before.digest
    assert read_artifact(artifact)[1] == content
    again = from_bytes(to_bytes(after), "here")
    assert msgspec.structs.replace(again, device=None, digest=before.digest) == before


@pytest.mark.parametrize("choice", [UNMEASURED, DevicePlacement(chosen=None, reason="", proof=proof(CPU_PROVIDER))])
def test_nothing_to_write(artifact: Path, choice: DevicePlacement) -> None:
    """A certificate that no GPU gave is not written."""
    with pytest.raises(CertificateError, match="nothing was proved on a GPU"):
        add_device(artifact, choice)


@pytest.mark.parametrize("name", ["molecule", "viewcount"])
def test_the_whole_certificate_on_the_cpu(name: str, shipped_folder: Folder, shipped: Open) -> None:
    """The very function that runs on a GPU, with every batch filled up: all proofs hold, and nothing is chosen."""
    manifest, content = read_artifact(shipped_folder(name))
    data: Any = RandomData(shipped(name))
    choice = certify_device(manifest, content, compute_of("cpu"), data=data)
    found = choice.proof
    assert found is not None
    assert (choice.chosen, found.provider, found.tf32_parity) == (None, CPU_PROVIDER, None)
    assert (found.test_instances, found.is_repeatable, found.company_max_abs_diff) == (12, True, 0.0)
    assert found.buckets["batch" if name == "viewcount" else "graphs"][-1] == (64 if name == "viewcount" else 4096)
    assert sum(found.nodes.values()) > 10
    assert choice.timings[0].instances == 1


@pytest.mark.skipif(has_cuda(), reason="this machine has a GPU")
def test_without_a_gpu(shipped_folder: Folder) -> None:
    """Asking for one ends in one line."""
    manifest, content = read_artifact(shipped_folder("molecule"))
    with pytest.raises(DeviceError, match=r"^molecule:\S+: this machine shows no NVIDIA device"):
        certify_device(manifest, content, compute_of("cuda"))
    done = CliRunner().invoke(main, ["certify-device", "molecule", "--without-test-set"])
    assert done.exit_code == 1
    assert done.output.startswith("Error: molecule:")
    assert len(done.output.splitlines()) == 1


@pytest.mark.skipif(has_cuda(), reason="this machine has a GPU")
def test_export_where_the_gpu_proves_nothing(shipped_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """An artifact that is proved on the CPU and not on the GPU is written, and says so; without a GPU it says that."""
    manifest, content = read_artifact(shipped_folder("molecule"))
    learner: Any = SimpleNamespace(data=None, net=None)
    assert with_device(manifest, content, learner).device == UNMEASURED
    monkeypatch.setattr("export.certify.has_cuda", lambda: True)
    choice = with_device(manifest, content, learner).device
    assert choice is not None
    assert choice.chosen == "cpu"
    assert choice.reason.startswith("not proved on the GPU: molecule:")


def test_commands(artifact: Path) -> None:
    """``inspect`` tells what computes where, ``certify-device`` what it proved; a CPU's proof is not written."""
    told = CliRunner().invoke(main, ["inspect", "tagging"]).output
    assert "not chosen: no GPU was measured" in told
    if not has_cuda():
        assert "  CPUExecutionProvider: 75 nodes, {'Add': 8, " in told
        assert "  CPUExecutionProvider, sizes: 18 nodes, {" in told
    done = CliRunner().invoke(
        main, ["certify-device", str(artifact), "--device", "cpu", "--without-test-set", "--write"]
    )
    assert "against float64   {'attention': " in done.output
    assert "Error: molecule: nothing was proved on a GPU, so there is nothing to write" in done.output
    assert done.exit_code == 1
    missing = CliRunner().invoke(main, ["inspect", "nobody"])
    assert "no artifact 'nobody'" in missing.output
