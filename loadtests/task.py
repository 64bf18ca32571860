"""Describe one run's task, as the command line hands it to Locust's master."""

import msgspec

from loadtests.plan import Arrivals, LoadPhase
from loadtests.targets import Ask


class Objective(msgspec.Struct, frozen=True, kw_only=True):
    """Describe what a service promises its callers.

    Attributes:
        p99_ms: 99 of 100 requests are answered rightly within so long, from when they were due.
        error_share: At most this share fails.
    """

    p99_ms: float
    error_share: float


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """From when on the generator itself is what limits.

    Attributes:
        cpu_share: Of one core, in any of its processes.
        lag_share: Of the objective's p99, by which one request of a hundred left late.
        lag_floor_ms: Lag below this is never too much.
    """

    cpu_share: float = 0.9
    lag_share: float = 0.1
    lag_floor_ms: float = 2.0

    def lag_ms(self, objective: Objective) -> float:
        """Return how late one request of a hundred may leave."""
        return max(self.lag_floor_ms, self.lag_share * objective.p99_ms)


class CapacitySearch(msgspec.Struct, frozen=True, kw_only=True):
    """Describe how a capacity is searched for.

    Attributes:
        start: Requests per second of the first window.
        most: Above this nothing is tried.
        warm_seconds: At the window's rate before each, not counted, until queues and buckets are what they are at it.
        climb_seconds: Length of the windows in which the rate is doubled.
        seconds: Length of the windows between a rate that held and one that did not.
        confirm_seconds: Length of the windows that confirm what was found.
        closeness: The search ends when the rates that held and did not are this close.
    """

    start: float = 50.0
    most: float = 50_000.0
    warm_seconds: float = 1.5
    climb_seconds: float = 3.0
    seconds: float = 5.0
    confirm_seconds: float = 8.0
    closeness: float = 1.02


class LoadTask(msgspec.Struct, frozen=True, kw_only=True):
    """A profile to be offered once or, with a hunt, a capacity to be found.

    Attributes:
        profile: Its name.
        ask: Whom to ask what.
        objective: What is promised.
        phases: Of the profile, its warm-up first.
        out: The file the measurement goes to.
        patience: From when on the generator limits.
        arrivals: Poisson or constant.
        seed: Of the arrivals.
        times: Of a replay.
        users: Of a closed loop; 0 for an open one.
        hunt: How to search; ``None`` for a profile.
        command: That asked for it.
    """

    profile: str
    ask: Ask
    objective: Objective
    phases: list[LoadPhase]
    out: str
    patience: Patience = Patience()
    arrivals: Arrivals = Arrivals.POISSON
    seed: int = 7
    times: list[float] | None = None
    users: int = 0
    hunt: CapacitySearch | None = None
    command: list[str] = []
