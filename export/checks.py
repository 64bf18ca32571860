"""The proofs of a certificate. Each returns its evidence, or raises."""

import hashlib
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import msgspec
import numpy as np
from msgspec import structs
from torch import nn

from export.convert import example_feeds, run_torch
from models.artifact.manifest import BatchInvariance, BatchNorm, CertifiedScore, Parity
from models.card import AnyCard, Array, Assets, Prediction
from models.errors import CertificateError
from models.runtime.predictor import Predictor
from models.training.datasets import Data

PARITY_BATCHES = (1, 2, 3, 8, 33, 64)
INVARIANCE_REQUESTS = 192
COMPANY_SIZES = (2, 3, 5, 8, 16, 64)


def largest_difference(name: str, found: Array, wanted: Array) -> float:
    """Return the largest absolute difference of two arrays.

    Raises:
        CertificateError: If shapes differ, or either is not finite.
    """
    if found.shape != wanted.shape:
        raise CertificateError(f"output {name!r} has shape {found.shape}, torch gives {wanted.shape}")
    if not (np.isfinite(found).all() and np.isfinite(wanted).all()):
        raise CertificateError(f"output {name!r} is not finite")
    return float(np.abs(found.astype(np.float64) - wanted).max(initial=0.0))


def check_parity(net: nn.Module, predictor: Predictor) -> Parity:
    """ONNX Runtime against torch, every output, over many batch sizes of requests of many lengths.

    Raises:
        CertificateError: If any value differs by more than ``atol + rtol * |torch|``.
    """
    card, assets = predictor.card, predictor.assets
    tolerance = card.tolerance
    worst = dict.fromkeys(sorted(predictor.outputs), 0.0)
    for seed, count in enumerate(PARITY_BATCHES):
        feeds = example_feeds(card, assets, count=count, seed=seed)
        wanted, found = run_torch(net, card, feeds), predictor.run(feeds, list(worst))
        for name in worst:
            difference = largest_difference(name, found[name], wanted[name])
            bound = tolerance.atol + tolerance.rtol * np.abs(wanted[name])
            if (np.abs(found[name] - wanted[name]) > bound).any():
                raise CertificateError(
                    f"output {name!r} of a batch of {count} differs from torch by {difference:.3g}, "
                    f"allowed are {tolerance.atol:g} + {tolerance.rtol:g} * |torch|"
                )
            worst[name] = max(worst[name], difference)
    return Parity(
        atol=tolerance.atol,
        rtol=tolerance.rtol,
        reason=tolerance.reason,
        batches=list(PARITY_BATCHES),
        instances=sum(PARITY_BATCHES),
        max_abs_diff=worst,
    )


def check_batch_norm(net: nn.Module, card: AnyCard, assets: Assets) -> BatchNorm:
    """Digest of the frozen statistics, and how far answers would move if they were not frozen.

    Raises:
        CertificateError: If a layer keeps no running statistics, or has never seen a batch.
    """
    layers = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not layers:
        return BatchNorm(layers=0, statistics_sha256=None, training_nodes=0, shift_if_unfrozen=None)
    digest = hashlib.sha256()
    for layer in layers:
        if layer.running_mean is None or layer.running_var is None or not int(layer.num_batches_tracked or 0):
            raise CertificateError("a batch-norm layer has no running statistics to freeze")
        digest.update(layer.running_mean.numpy().tobytes() + layer.running_var.numpy().tobytes())
    unfrozen = deepcopy(net).eval()
    for module in unfrozen.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
    feeds = example_feeds(card, assets, count=16, seed=1)
    shifted, wanted = run_torch(unfrozen, card, feeds), run_torch(net, card, feeds)
    return BatchNorm(
        layers=len(layers),
        statistics_sha256=digest.hexdigest(),
        training_nodes=0,
        shift_if_unfrozen=max(largest_difference(name, shifted[name], wanted[name]) for name in wanted),
    )


def prediction_difference(one: Any, other: Any) -> float:
    """Largest difference of two predictions' numbers; infinite when their words, keys or shapes differ."""
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return np.inf
        return max((prediction_difference(one[key], other[key]) for key in one), default=0.0)
    if isinstance(one, np.ndarray | np.generic | float):
        first, second = np.asarray(one), np.asarray(other)
        if first.shape != second.shape:
            return np.inf
        return float(np.abs(first.astype(np.float64) - second).max(initial=0.0))
    return 0.0 if one == other else np.inf


def check_batch_invariance(predictor: Predictor) -> BatchInvariance:
    """Return every random request alone against in companies of several sizes and orders.

    Raises:
        CertificateError: If one bit of one prediction differs.
    """
    rng = np.random.default_rng(7)
    card, assets = predictor.card, predictor.assets
    samples = predictor.encode([card.random_request(rng, assets) for _ in range(INVARIANCE_REQUESTS)])
    explain = predictor.attends
    alone = [predictor.infer([sample], explain=explain)[0] for sample in samples]
    worst, companies = 0.0, 0
    for size in COMPANY_SIZES:
        order = rng.permutation(len(samples))
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            together = predictor.infer([samples[row] for row in rows], explain=explain)
            worst = max(worst, *map(prediction_difference, together, [alone[row] for row in rows]))
            companies += 1
    if worst != 0.0:
        raise CertificateError(f"an answer in company differs from the answer alone by {worst:.3g}")
    return BatchInvariance(requests=len(samples), companies=companies, bit_identical=True, max_abs_diff=worst)


def words(prediction: Prediction) -> dict[str, Any]:
    """Return the discrete part of a prediction: labels, tags, class ids."""
    return {key: value for key, value in prediction.items() if not isinstance(value, np.ndarray | np.generic | float)}


def check_score(data: Data, torch_predictor: Predictor, onnx_predictor: Predictor) -> CertifiedScore:
    """Return the whole test set, as requests, through both.

    Raises:
        CertificateError: If a label changes, or the scores differ by more than a hundred-thousandth.
    """
    requests, truths = zip(*data.examples("test"), strict=True)
    before = torch_predictor.predict(requests)
    after = onnx_predictor.predict(requests)
    changes = sum(words(a) != words(b) for a, b in zip(before, after, strict=True))
    scores = _judge(data, before, truths), _judge(data, after, truths)
    if changes:
        raise CertificateError(f"{changes} of {len(requests)} test answers changed their label")
    if abs(scores[0] - scores[1]) > 1e-5 * max(1.0, abs(scores[0])):
        raise CertificateError(f"the test {data.metric.name} moved from {scores[0]} to {scores[1]}")
    return CertifiedScore(
        metric=data.metric.name,
        unit=data.metric.unit,
        instances=len(requests),
        torch=round(scores[0], 4),
        onnx=round(scores[1], 4),
        label_changes=changes,
        measured_on=", ".join(_given(requests[0])),
    )


def _given(instance: msgspec.Struct) -> list[str]:
    """Return the fields of a request that say what is asked about."""
    defaults = {field.name: field.default for field in structs.fields(instance)}
    return [name for name, default in defaults.items() if getattr(instance, name) is not default]


def _judge(data: Data, predictions: Sequence[Prediction], truths: Sequence[Any]) -> float:
    return data.judge(predictions, truths)
