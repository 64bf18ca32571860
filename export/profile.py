"""From training and validation data to the profile in a manifest. Torch-free."""

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from models.artifact.drift_profile import Feature, Floats, Profile, stability_index
from models.card import Array, DriftFeature
from models.runtime.predictor import Predictor
from models.training.datasets import Data

WINDOW = 1000
QUANTILES = (0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999)
# A bin edge with fewer independent instances beyond it would be an accident.
LEAST_BEYOND = 3
# The range is so much wider than what was seen, on each side, in parts of it: a year's growth is no outlier.
MARGIN = 0.25
DIGITS = 6
# By custom an index below is no change.
LEAST_LIMIT = 0.1
DAYS, WINDOWS_A_DAY = 4000, 86
# Of ordinary days, for each of a handful of features.
QUIET_DAYS = 0.999
CHUNK = 1024


def make_profile(predictor: Predictor, data: Data) -> Profile | None:
    """Return what is usual of a model's requests and answers; ``None`` where its card watches nothing.

    Requests are described by the training data. Answers, and whatever else training flatters, by the validation data:
    on what it has learned from a model is surer than it will ever be again. Limits come from the validation data too.
    """
    traits = predictor.card.traits
    if traits is None:
        return None
    train = _measure(predictor, data, "train", with_answers=False)
    validation = _measure(predictor, data, "validation", with_answers=True)
    features = []
    for trait in traits.features:
        own = validation[trait.name]
        usual, split = (own, "validation") if trait.is_learned else (train[trait.name], "train")
        features.append(make_feature(trait, usual, own, split, predictor.assets))
    return Profile(window=WINDOW, features=features)


def _measure(predictor: Predictor, data: Data, split: str, *, with_answers: bool) -> dict[str, Array]:
    traits, assets = predictor.card.traits, predictor.assets
    assert traits is not None  # the caller has looked
    parts: list[dict[str, Array]] = []
    for instances in _chunks(instance for instance, _ in data.examples(split)):
        samples = predictor.encode(instances)
        found = traits.of_samples(samples, assets)
        if with_answers:
            predictions = [answer for batch in predictor.batches(samples) for answer in predictor.infer(batch)]
            found |= traits.of_answers(samples, predictions, assets)
        parts.append(found)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _chunks(instances: Iterator[Any]) -> Iterator[list[Any]]:
    while chunk := list(islice(instances, CHUNK)):
        yield chunk


def make_feature(
    trait: DriftFeature, usual: Array, validation: Array, split: str, assets: Any, seed: int = 0
) -> Feature:
    """Return what is usual of one feature.

    Args:
        trait: Which.
        usual: Its values, in the order of the data, on those that say what is usual.
        validation: On the validation data; the limit comes from them.
        split: Where ``usual`` is from.
        assets: The model's.
        seed: Of the days tried.
    """
    kinds = [] if trait.kinds is None else [*trait.kinds(assets)]
    independent = count_independent(usual)
    edges = [] if kinds else find_edges(usual, independent)
    bare = Feature(
        name=trait.name,
        unit=trait.unit,
        split=split,
        instances=len(usual),
        independent=_round(independent),
        edges=edges,
        kinds=kinds,
        expected=[0.0] * (len(kinds) or len(edges) + 1),
        limit=0.0,
    )
    expected = _shares(bare.count(usual))
    found = bare.count(validation)
    limit = find_limit(expected, found / max(1.0, found.sum()), count_independent(validation), seed)
    return Feature(
        name=bare.name,
        unit=bare.unit,
        split=split,
        instances=bare.instances,
        independent=bare.independent,
        edges=edges,
        kinds=kinds,
        expected=[_round(share) for share in expected.tolist()],
        limit=limit,
    )


def _shares(counts: Floats) -> Floats:
    """Shares of the bins; half an instance more in each, since one that was never seen is not impossible."""
    smooth: Floats = (counts + 0.5) / (counts.sum() + 0.5 * len(counts))
    return smooth


def count_independent(values: Array) -> float:
    """Return how many independent instances ``(B,)`` or ``(B, kinds)`` values in order are worth.

    The number of them over the sum of their autocorrelations, up to the first pair of neighbouring lags whose sum is
    not positive (Geyer 1992, https://doi.org/10.1214/ss/1177011137).
    """
    table = values.reshape(len(values), -1).astype(np.float64)
    table = table[np.isfinite(table).all(axis=1)]
    count = len(table)
    table -= table.mean(axis=0)
    size = 2 ** math.ceil(math.log2(2 * max(1, count)))
    power = (np.abs(np.fft.rfft(table, size, axis=0)) ** 2).sum(axis=1)
    correlations = np.fft.irfft(power, size)[:count]
    if count < 2 or correlations[0] <= 1e-12:
        return float(count)
    correlations /= correlations[0]
    pairs = correlations[: count // 2 * 2].reshape(-1, 2).sum(axis=1)
    ends = np.flatnonzero(pairs <= 0)
    length = 2 * pairs[: ends[0] if len(ends) else None].sum() - 1
    return float(count / max(1.0, length))


def find_edges(values: Array, independent: float) -> list[float]:
    """Return the range, and the quantiles between that enough independent values are beyond."""
    finite = values[np.isfinite(values)].astype(np.float64)
    low, high = float(finite.min()), float(finite.max())
    chosen = [part for part in QUANTILES if independent * min(part, 1 - part) >= LEAST_BEYOND]
    inner = np.quantile(finite, chosen, method="inverted_cdf").tolist() if chosen else []
    margin = MARGIN * (high - low) or MARGIN * max(1.0, abs(high))
    edges = [low - margin, *(edge for edge in inner if edge > low), high + margin]
    return sorted({_round(edge) for edge in edges})


def find_limit(expected: Floats, validation: Floats, independent: float, seed: int) -> float:
    """Return the index that ordinary traffic, at one request in a second, does not reach on 999 of 1,000 days.

    A day's requests are ordinary but not those of the validation data: their shares are drawn from what half of the
    independent validation instances leave open (half, since what is usual was counted on a sample too), with one
    instance's worth of what is usual. In each of the day's windows the shares found differ again.

    Args:
        expected: Shares of the bins.
        validation: The validation data's.
        independent: How many independent instances those are.
        seed: Of the days.
    """
    rng = np.random.default_rng(seed)
    days = rng.dirichlet(validation * independent / 2 + expected, size=DAYS)
    worst = np.zeros(DAYS)
    for _ in range(WINDOWS_A_DAY):
        worst = np.maximum(worst, stability_index(expected, rng.multinomial(WINDOW, days).astype(np.float64)))
    found = float(np.quantile(worst, QUIET_DAYS))
    return max(LEAST_LIMIT, math.ceil(found * 100) / 100)


def _round(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")
