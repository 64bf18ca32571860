"""The arithmetic behind the trials' figures."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def schedule(rate: float, seconds: float, seed: int) -> NDArray[np.float64]:
    """Return when requests arrive, whatever the server does: a Poisson process of ``rate`` per second, from zero on."""
    rng = np.random.default_rng(seed)
    count = int(rate * seconds + 6 * math.sqrt(rate * seconds) + 10)
    times = np.cumsum(rng.exponential(1 / rate, count))
    return times[times < seconds]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least ``share`` of the values do not exceed; zero when there is none."""
    if not len(values):
        return 0.0
    ranked = sorted(values)
    return float(ranked[max(0, math.ceil(share * len(ranked)) - 1)])


def goodput(good: int, began: float, last_answer: float, seconds: float) -> float:
    """Good answers per second, until the last answer or the end of the offer, whichever is later."""
    return good / max(last_answer - began, seconds)
