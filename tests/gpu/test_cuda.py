"""On an NVIDIA device: the provider really loads, and every proof of the certificate holds there.

``python -m pytest -m gpu``. What takes longer, and the table of the promises, is ``python -m benchmarks.gpu``.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.device import certify_device, compute_of
from export.store import shipped_folders
from models.artifact.manifest import read_artifact
from models.artifact.onnx_allowlist import find_size_nodes
from models.errors import RunnerFailed
from models.runtime.device import CPU_PROVIDER, CUDA_PROVIDER, Compute, Device, has_cuda
from models.runtime.predictor import open_predictor, warm_up
from models.runtime.session import find_nodes, open_artifact

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not has_cuda(), reason="no NVIDIA device; run `pytest -m gpu` on a machine with one"),
]
every_model = pytest.mark.parametrize("folder", shipped_folders(), ids=lambda folder: folder.name)
CUDA = compute_of("cuda")


@every_model
def test_certificate(folder: Path) -> None:
    """Parity with float64 within the card's tolerance, repeatability, company: every proof holds on the device."""
    manifest, content = read_artifact(folder)
    proof = certify_device(manifest, content, CUDA).proof
    assert proof is not None
    assert proof.provider == CUDA_PROVIDER
    assert proof.tf32_parity is not None
    assert proof.buckets


@every_model
def test_no_number_is_computed_on_the_cpu(folder: Path) -> None:
    """What the CPU computes beside the GPU depends on sizes alone."""
    session = open_artifact(folder, CUDA)
    size_nodes = find_size_nodes((folder / "model.onnx").read_bytes())
    strays = [n for n in find_nodes(session.engine) if n.provider == CPU_PROVIDER and n.name not in size_nodes]
    assert strays == []


@every_model
def test_cuda_agrees_with_cpu(folder: Path) -> None:
    """Every shipped model gives the CPU's outputs on CUDA, within the tolerance of CPU parity, attention included."""
    cuda, cpu = open_artifact(folder, CUDA), open_artifact(folder)
    assert cuda.provider == CUDA_PROVIDER
    predictor, rng = open_predictor(cpu), np.random.default_rng(3)
    samples = predictor.encode([predictor.card.random_request(rng, predictor.assets) for _ in range(16)])
    feeds, wanted = predictor.card.collate(samples), predictor.wanted(explain=predictor.attends)
    expected, tolerance = cpu.run(feeds, wanted), predictor.card.tolerance
    for name, values in cuda.run(feeds, wanted).items():
        # Both are as far from float64 as the tolerance lets them be.
        np.testing.assert_allclose(values, expected[name], atol=2 * tolerance.atol, rtol=2 * tolerance.rtol)


@every_model
def test_warm_up(folder: Path) -> None:
    """Every size a service warms up runs, with a small arena."""
    session = open_artifact(folder, Compute(device=Device.CUDA, memory_bytes=2**30))
    warm_up(open_predictor(session))


def test_a_wrong_index_never_reaches_the_device(shipped_folder: Any) -> None:
    """There Gather would read whatever lies behind the table."""
    session = open_artifact(shipped_folder("molecule"), CUDA)
    predictor = open_predictor(session)
    feeds = predictor.card.collate(predictor.encode([predictor.card.example(predictor.assets)]))
    feeds["features"][0] = 10**6
    with pytest.raises(RunnerFailed, match=r"^input 'features' has an index outside of"):
        session.run(feeds, ["scores"])
