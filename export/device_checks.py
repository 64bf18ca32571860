"""The proofs of a certificate on a device. Each returns its evidence, or raises; each runs on any provider."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from export.checks import largest_difference, words
from export.convert import example_feeds
from models.card import Array, Feeds, Prediction, Tolerance
from models.errors import CertificateError
from models.runtime.predictor import Predictor, Run
from models.training.datasets import Data

BATCHES = (1, 2, 3, 8, 16)
REQUESTS = 48
COMPANY_SIZES = (2, 5, 16)
REPEATS = 20
# A GPU sums into a place from many threads at once, in no order: with these the last bits are nobody's promise.
UNORDERED = frozenset(("ScatterElements", "ScatterND"))


class BatchMates(NamedTuple):
    """In how many companies requests were computed, and by how much an answer differed from the answer alone."""

    companies: int
    max_abs_diff: float


def is_within(found: Array, wanted: Array, tolerance: Tolerance) -> bool:
    """Return whether every value is as near as it must be; both finite."""
    bound = tolerance.atol + tolerance.rtol * np.abs(wanted.astype(np.float64))
    return bool((np.abs(found.astype(np.float64) - wanted) <= bound).all())


def check_float64(predictor: Predictor, reference: Run, tolerance: Tolerance | None) -> dict[str, float]:
    """Return every output over many batch sizes against the same in float64: the largest difference of each.

    Args:
        predictor: On the device.
        reference: In float64.
        tolerance: How near each value must be; ``None``: it is only measured, and must be finite.

    Raises:
        CertificateError: If a value is too far, or not finite.
    """
    worst = dict.fromkeys(sorted(predictor.outputs), 0.0)
    for seed, count in enumerate(BATCHES):
        feeds = example_feeds(predictor.card, predictor.assets, count=count, seed=seed)
        wanted, found = reference(feeds, list(worst)), predictor.run(feeds, list(worst))
        for name in worst:
            difference = largest_difference(name, found[name], wanted[name])
            if tolerance is not None and not is_within(found[name], wanted[name], tolerance):
                raise CertificateError(
                    f"output {name!r} of a batch of {count} differs from float64 by {difference:.3g}, "
                    f"allowed are {tolerance.atol:g} + {tolerance.rtol:g} * |float64|"
                )
            worst[name] = max(worst[name], difference)
    return worst


def check_repeats(predictor: Predictor, operators: Iterable[str], tolerance: Tolerance) -> bool:
    """Return whether the same micro-batches come to the same bits each time.

    Raises:
        CertificateError: If they do not, and nothing in the model sums in no order; or if they are not even near.
    """
    is_ordered, is_same = not UNORDERED & {*operators}, True
    names = sorted(predictor.outputs)
    for seed, count in enumerate(BATCHES):
        feeds = example_feeds(predictor.card, predictor.assets, count=count, seed=seed)
        first = predictor.run(feeds, names)
        for _ in range(REPEATS - 1):
            again = predictor.run(feeds, names)
            for name in names:
                largest_difference(name, again[name], first[name])  # finite, and of one shape
                is_same &= again[name].tobytes() == first[name].tobytes()
                if not is_within(again[name], first[name], tolerance):
                    raise CertificateError(f"output {name!r} of a batch of {count} is another each time")
    if is_ordered and not is_same:
        raise CertificateError("the same micro-batch comes to other bits each time")
    return is_same


def check_company(predictor: Predictor, tolerance: Tolerance) -> BatchMates:
    """Random requests alone against in companies of several sizes and orders.

    Raises:
        CertificateError: If a label changes, or a number by more than the tolerance.
    """
    rng = np.random.default_rng(7)
    card, assets = predictor.card, predictor.assets
    samples = predictor.encode([card.random_request(rng, assets) for _ in range(REQUESTS)])
    alone = [predictor.infer([sample])[0] for sample in samples]
    companies, worst = 0, 0.0
    for size in COMPANY_SIZES:
        order = rng.permutation(len(samples))
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            for row, answer in zip(rows, predictor.infer([samples[row] for row in rows]), strict=True):
                worst = max(worst, _difference(answer, alone[row], tolerance))
            companies += 1
    return BatchMates(companies, worst)


def _difference(found: Prediction, wanted: Prediction, tolerance: Tolerance) -> float:
    if words(found) != words(wanted):
        raise CertificateError("an answer in company has another label than alone")
    one, other = numbers(found), numbers(wanted)
    difference = largest_difference("prediction", one, other)
    if not is_within(one, other, tolerance):
        raise CertificateError(f"an answer in company differs from the answer alone by {difference:.3g}")
    return difference


def numbers(prediction: Prediction) -> NDArray[np.float64]:
    """Return all numbers of a prediction, end to end; labels and what is nested are left out."""
    parts = [
        np.ravel(value) for _, value in sorted(prediction.items()) if isinstance(value, np.ndarray | np.generic | float)
    ]
    return np.concatenate([*parts, np.empty(0)]).astype(np.float64)


def count_changes(ones: Sequence[Prediction], others: Sequence[Prediction]) -> int:
    """Return how many answers say something else."""
    return sum(words(one) != words(other) for one, other in zip(ones, others, strict=True))


def count_random_changes(one: Predictor, other: Predictor) -> int:
    """Of random requests, how many get another label."""
    rng = np.random.default_rng(11)
    requests = [one.card.random_request(rng, one.assets) for _ in range(REQUESTS)]
    return count_changes(one.predict(requests), other.predict(requests))


def check_test_set(data: Data, cpu: Predictor, device: Predictor) -> int:
    """Return how many test requests there are; each gets the CPU's label, and the CPU's numbers within the tolerance.

    Raises:
        CertificateError: If one does not.
    """
    requests: list[Any] = [request for request, _ in data.examples("test")]
    before, after = cpu.predict(requests), device.predict(requests)
    if changes := count_changes(before, after):
        raise CertificateError(f"{changes} of {len(requests)} test answers changed their label on the device")
    far = [not is_within(numbers(b), numbers(a), cpu.card.tolerance) for a, b in zip(before, after, strict=True)]
    if any(far):
        raise CertificateError(f"{sum(far)} of {len(requests)} test answers are too far from the CPU's")
    return len(requests)


def full_feeds(predictor: Predictor) -> Feeds:
    """Return a micro-batch as large as the budget lets it be."""
    return predictor.card.collate(full_batch(predictor))


def full_batch(predictor: Predictor) -> list[Any]:
    """Return its samples."""
    rng, samples = np.random.default_rng(3), list[Any]()
    while len(predictor.batches(samples)) < 2:
        samples += predictor.encode([predictor.card.random_request(rng, predictor.assets)])
    return predictor.batches(samples)[0]
