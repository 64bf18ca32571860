"""A scenario by its rules: what LoadGen must expect is measured first, and Server's rate is searched for."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from loadtests.mlperf.exam import LoggedOutcome, run
from loadtests.mlperf.library import SampleLibrary
from loadtests.mlperf.scenario import Scenario, ScenarioSettings, least_queries
from loadtests.mlperf.served import Address

SHORT_SECONDS = 1.0
# A try of the search is short, but its 99th percentile should not be its worst query.
SEARCH_QUERIES = 200
DOUBLINGS, HALVINGS = 12, 5
ATTEMPTS = 6
# LoadGen makes requests for twice the duration at the expected latency; a faster service must not run out of them.
FASTER = 0.6
SLOWER = 0.85
# How an INVALID run is tried again. A search of seconds misses rare stalls, so Server is asked for much less.
AGAIN = {Scenario.SERVER: 0.7, Scenario.OFFLINE: 1.3}


class MlperfRun:
    """One library asked of one service, with the seconds and the bound of the scenarios."""

    def __init__(self, address: Address, library: SampleLibrary, seconds: float, bound_ms: float, logs: Path) -> None:
        self.address, self.library = address, library
        self.seconds, self.bound_ms, self.logs = seconds, bound_ms, logs

    def settings(self, scenario: Scenario, expected: float) -> ScenarioSettings:
        """Return a run by the rules, of the seconds that were asked for."""
        return ScenarioSettings(
            scenario=scenario,
            seconds=self.seconds,
            expected=expected,
            bound_ms=self.bound_ms,
            queries=least_queries(scenario, len(self.library.samples)),
            is_uneven=self.library.is_uneven,
        )

    def short(self, scenario: Scenario, expected: float, queries: int) -> LoggedOutcome:
        """Return a run that only says how fast the service is."""
        settings = dataclasses.replace(self.settings(scenario, expected), seconds=SHORT_SECONDS, queries=queries)
        return self._run(dataclasses.replace(settings, is_uneven=False))

    def _run(self, settings: ScenarioSettings) -> LoggedOutcome:
        return run(self.address, self.library, settings, self.logs).outcome

    def perform(self, scenario: Scenario, rate: float | None = None) -> tuple[LoggedOutcome, ScenarioSettings]:
        """Return the run that counts, and the settings it had; ``rate`` is Server's, searched for by default."""
        expected = rate or self._expect(scenario)
        for _ in range(ATTEMPTS):
            settings = self.settings(scenario, expected)
            outcome = self._run(settings)
            if outcome.is_valid or rate or (outcome.failures and scenario is not Scenario.SERVER):
                break
            # Server was asked too much; the others had too little to do.
            expected *= AGAIN.get(scenario, SLOWER)
        return outcome, settings

    def _expect(self, scenario: Scenario) -> float:
        if scenario is Scenario.OFFLINE:
            found = self.short(scenario, 1.0, min(2048, 8 * len(self.library.samples)))
            return 1.15 * self.short(scenario, found.figure, 1).figure
        if scenario is Scenario.SERVER:
            return SLOWER * highest(self._holds, 0.5 / (self.short(Scenario.SINGLE_STREAM, 1e5, 64).p50_ms / 1000))
        return 1e6 * FASTER * self.short(scenario, 1e5, 64).p50_ms

    def _holds(self, rate: float) -> bool:
        outcome = self.short(Scenario.SERVER, rate, SEARCH_QUERIES)
        return not outcome.failures and outcome.p99_ms <= self.bound_ms


def highest(holds: Callable[[float], bool], first: float, steps: int = 3) -> float:
    """Nearly the highest rate that holds: doubled or halved from ``first``, then narrowed by halving the interval.

    Where nothing holds it is the last rate that was tried: the run that counts will say so.
    """
    rate = first
    if holds(rate):
        for _ in range(DOUBLINGS):
            if not holds(2 * rate):
                break
            rate *= 2
    else:
        for _ in range(HALVINGS):
            rate /= 2
            if holds(rate):
                break
        else:
            return rate
    low, high = rate, 2 * rate
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
