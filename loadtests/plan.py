"""Plan arrivals: phases, fixed before the first request leaves.

An open-loop load does not wait for answers. Its arrival times are a function of the phases, the kind of arrivals and
the seed, and nothing the server does can move them.
"""

from collections.abc import Sequence
from enum import StrEnum

import msgspec
import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]


class Arrivals(StrEnum):
    """Describe how requests follow each other."""

    POISSON = "poisson"
    CONSTANT = "constant"


class LoadPhase(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of time with one rate, or with a rate that changes steadily.

    Attributes:
        name: In the report.
        seconds: How long.
        rate: Requests per second at its beginning.
        until: Requests per second at its end; ``rate`` when there is none.
        is_counted: Whether its requests are part of the result; those of a warm-up are not.
    """

    name: str
    seconds: float
    rate: float
    until: float | None = None
    is_counted: bool = True

    @property
    def last_rate(self) -> float:
        """Requests per second at its end."""
        return self.rate if self.until is None else self.until

    @property
    def requests(self) -> float:
        """Return how many are to be expected."""
        return self.seconds * (self.rate + self.last_rate) / 2


class ArrivalPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One worker's part of a load.

    Attributes:
        phases: In order.
        arrivals: Poisson or constant.
        seed: Of the times and of who is asked.
        index: Which of the workers this is, from 0.
        workers: How many share the load; each takes every n-th arrival.
        times: Seconds of each arrival from a log, which then replace what the phases would give.
        users: Users of a closed loop, of which this worker has some; 0 for an open one.
    """

    phases: list[LoadPhase]
    arrivals: Arrivals = Arrivals.POISSON
    seed: int = 7
    index: int = 0
    workers: int = 1
    times: list[float] | None = None
    users: int = 0

    @property
    def seconds(self) -> float:
        """From the first phase's beginning to the last one's end."""
        return sum(phase.seconds for phase in self.phases)

    def schedule(self) -> Times:
        """Return when this worker's requests are due, in seconds from the beginning."""
        whole = np.array(self.times) if self.times is not None else schedule(self.phases, self.arrivals, self.seed)
        return whole[self.index :: self.workers]

    def choices(self, weights: Sequence[float], count: int) -> NDArray[np.int64]:
        """Return which of the models each of this worker's ``count`` requests asks, by their weights."""
        rng = np.random.default_rng((self.seed, self.index))
        shares = np.array(weights) / sum(weights)
        return rng.choice(len(shares), count, p=shares)


def schedule(phases: Sequence[LoadPhase], arrivals: Arrivals, seed: int) -> Times:
    """Arrival times of all phases, ascending.

    Arrivals at rate one are drawn first and then moved along the inverse of the expected number of requests, which
    gives an inhomogeneous Poisson process exactly (Cinlar, Introduction to Stochastic Processes, 1975, section 4.7).
    """
    total = sum(phase.requests for phase in phases)
    if arrivals is Arrivals.CONSTANT:
        expected = np.arange(0.5, total)
    else:
        gaps = np.random.default_rng(seed).exponential(size=int(total + 6 * total**0.5 + 20))
        expected = np.cumsum(gaps)
        expected = expected[expected < total]
    return _inverse(phases, expected)


def phase_of(phases: Sequence[LoadPhase], times: Times) -> NDArray[np.int64]:
    """In which phase each time lies, by number."""
    ends = np.cumsum([phase.seconds for phase in phases])
    return np.minimum(np.searchsorted(ends, times, side="right"), len(phases) - 1)


def until(phases: Sequence[LoadPhase], seconds: float) -> list[LoadPhase]:
    """Return the phases as far as they had come after so many seconds."""
    found = []
    for phase in phases:
        if seconds <= 0:
            break
        share = min(1.0, seconds / phase.seconds)
        last = phase.rate + share * (phase.last_rate - phase.rate)
        found.append(msgspec.structs.replace(phase, seconds=share * phase.seconds, until=last))
        seconds -= phase.seconds
    return found


def _inverse(phases: Sequence[LoadPhase], expected: Times) -> Times:
    """Return when the expected number of requests reaches each of the values."""
    parts, begin, below = [], 0.0, 0.0
    for phase in phases:
        inside = expected[(expected >= below) & (expected < below + phase.requests)] - below
        slope = (phase.last_rate - phase.rate) / phase.seconds
        # The root of slope * t**2 / 2 + rate * t = inside, in the form that also holds for a slope of 0.
        parts.append(begin + 2 * inside / (phase.rate + np.sqrt(phase.rate**2 + 2 * slope * inside)))
        begin, below = begin + phase.seconds, below + phase.requests
    return np.concatenate(parts)
