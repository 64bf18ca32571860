"""Compare a new version's answers with the old one's on recent requests."""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from models.errors import ActivationRefused, Fault, LecternError
from models.runtime.predictor import Predictor

RANDOM = 16
SEED = 0


class VersionComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two versions of a model on the same instances.

    Attributes:
        compared: How many instances.
        changed: How many have another label, or anything else that is not a number, in the new answer.
        largest_difference: Between numbers at the same place of two answers of one form.
    """

    compared: int
    changed: int
    largest_difference: float


def compare(old: Predictor, new: Predictor, instances: Sequence[Any]) -> VersionComparison:
    """Ask both versions, one instance at a time.

    Args:
        old: The version that serves.
        new: The one to be.
        instances: Such as the old version has answered; without any, random ones.

    Raises:
        ActivationRefused: If the new version refuses what the old one answers, or fails on it.
    """
    card = old.card
    rng = np.random.default_rng(SEED)
    tried = list(instances) or [card.random_request(rng, old.assets) for _ in range(RANDOM)]
    changed, largest = 0, 0.0
    for instance in tried:
        try:
            (answer,) = new.predict([instance])
        except LecternError as error:
            reasons = [fault.reason for fault in getattr(error, "faults", ())] or [str(error)]
            faults = [Fault(("recent",), reason) for reason in reasons]
            raise ActivationRefused("the new version fails where the old one answers", faults) from error
        is_changed, difference = differ(old.predict([instance])[0], answer)
        changed, largest = changed + is_changed, max(largest, difference)
    return VersionComparison(compared=len(tried), changed=changed, largest_difference=largest)


def differ(old: Any, new: Any) -> tuple[bool, float]:
    """Return whether two answers say something else, and how far their numbers are apart."""
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        parts = [differ(old[key], new[key]) for key in old]
        return any(changed for changed, _ in parts), max((difference for _, difference in parts), default=0.0)
    if _is_numeric(old) and _is_numeric(new):
        first, second = np.asarray(old, np.float64), np.asarray(new, np.float64)
        if first.shape != second.shape:
            return True, 0.0
        return False, float(np.abs(first - second).max(initial=0.0))
    return bool(old != new), 0.0


def _is_numeric(value: Any) -> bool:
    return isinstance(value, float | np.floating) or (isinstance(value, np.ndarray) and value.dtype.kind == "f")


def check_change_rate(comparison: VersionComparison, most_changed: float) -> None:
    """Refuse a version that says something else too often.

    Args:
        comparison: What was found.
        most_changed: Largest allowed part of changed answers, 0 to 1.

    Raises:
        ActivationRefused: If there are more.
    """
    allowed = math.floor(most_changed * comparison.compared)
    if comparison.changed > allowed:
        reason = f"expected at most {allowed} changed answers of {comparison.compared}, found {comparison.changed}"
        raise ActivationRefused("the new version answers otherwise", [Fault(("max_changed",), reason)])
