"""The rules of a scenario, and LoadGen's settings for one run of it."""

from dataclasses import dataclass
from enum import StrEnum

RULES_SECONDS = 600
# "At least 24,576 samples, or the whole set where it is smaller."
OFFLINE_SAMPLES = 24_576
# 662 queries are what early stopping needs at the 99th percentile with one query over it.
MULTI_STREAM_QUERIES = 662
MULTI_STREAM_SAMPLES = 8
# Early stopping needs 459 when none is late; a slow service's run is longer, not too short.
SERVER_QUERIES = 600


class Scenario(StrEnum):
    """MLPerf Inference's four."""

    SINGLE_STREAM = "SingleStream"
    MULTI_STREAM = "MultiStream"
    SERVER = "Server"
    OFFLINE = "Offline"

    @property
    def is_stream(self) -> bool:
        """Return whether the next query follows the answer to the last one."""
        return self in (Scenario.SINGLE_STREAM, Scenario.MULTI_STREAM)


class Purpose(StrEnum):
    """Describe what LoadGen asks for: speed by the rules, every sample once, or what the compliance tests need."""

    PERFORMANCE = "performance"
    ACCURACY = "accuracy"
    UNIQUE = "unique"
    SAME = "same"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioSettings:
    """One run of LoadGen.

    Attributes:
        scenario: Which of the four.
        purpose: What for.
        seconds: The least duration; 0 where ``queries`` says how much.
        expected: What LoadGen plans with: nanoseconds for the streams, queries or samples a second for the others.
        bound_ms: Of the 99th percentile, for Server.
        queries: The least number of queries; for Offline, of samples.
        is_uneven: The inputs cost differently: every sample is issued equally often.
        logged: How many answers of a performance run to keep for comparison; 0 for none.
        same: The sample to repeat, with ``SAME``.
    """

    scenario: Scenario
    purpose: Purpose = Purpose.PERFORMANCE
    seconds: float
    expected: float
    bound_ms: float
    queries: int
    is_uneven: bool = False
    logged: int = 0
    same: int = 0

    def to_config(self) -> str:
        """The text of a ``user.conf``; seeds, percentiles and the rest come from LoadGen's own ``mlperf.conf``."""
        name = self.scenario
        expected = ("target_latency", self.expected / 1e6) if name.is_stream else ("target_qps", self.expected)
        lines = {
            "min_duration": int(1000 * self.seconds),
            "min_query_count": self.queries,
            expected[0]: expected[1],
            "sample_concatenate_permutation": int(self.is_uneven),
        }
        if name is Scenario.SERVER:
            lines["target_latency"] = self.bound_ms
        return "".join(f"*.{name}.{key} = {value}\n" for key, value in lines.items())


def least_queries(scenario: Scenario, samples: int) -> int:
    """Return the least queries (Offline: samples) of a run by the rules, with a library of so many samples."""
    if scenario is Scenario.OFFLINE:
        return min(OFFLINE_SAMPLES, samples)
    return {Scenario.MULTI_STREAM: MULTI_STREAM_QUERIES, Scenario.SERVER: SERVER_QUERIES}.get(scenario, 100)
