"""On an NVIDIA device: the provider really loads, and answers stay near the CPU's."""

import numpy as np
import pytest

from export.store import shipped_folders
from models.predictor import open_predictor
from models.session import CUDA_PROVIDER, Device, has_cuda, open_artifact

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not has_cuda(), reason="no NVIDIA device; run `pytest -m gpu` on a machine with one"),
]


@pytest.mark.parametrize("folder", shipped_folders(), ids=lambda folder: folder.name)
def test_cuda_agrees_with_cpu(folder):
    """Every shipped model gives the CPU's outputs on CUDA, within ten times the tolerance of CPU parity."""
    cuda, cpu = open_artifact(folder, Device.CUDA), open_artifact(folder, Device.CPU)
    assert cuda.provider == CUDA_PROVIDER
    predictor, rng = open_predictor(cpu), np.random.default_rng(3)
    samples = predictor.encode([predictor.card.random_request(rng, predictor.assets) for _ in range(16)])
    feeds, wanted = predictor.card.collate(samples), predictor.wanted(explain=predictor.attends)
    expected, tolerance = cpu.run(feeds, wanted), predictor.card.tolerance
    for name, values in cuda.run(feeds, wanted).items():
        np.testing.assert_allclose(values, expected[name], atol=10 * tolerance.atol, rtol=10 * tolerance.rtol)
