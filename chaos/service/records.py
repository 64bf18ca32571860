"""Describe the open-loop client's plan and its report."""

from collections import Counter

import msgspec

TICK_SECONDS = 0.05


class ChaosPhase(msgspec.Struct, frozen=True, kw_only=True):
    """So many requests a second, for so long."""

    rate: float
    seconds: float


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Whole requests in turn, phase after phase.

    Attributes:
        port: Of this machine.
        requests: Sent in turn.
        phases: One after the other.
        most_connections: Opened at most; what finds none waits, and its latency grows.
        patience_seconds: Waited for the last answers.
        keeps_answers: Whether answers are counted by digest header and body too.
        seed: Of the arrivals.
    """

    port: int
    requests: list[bytes]
    phases: list[ChaosPhase]
    most_connections: int = 8000
    patience_seconds: float = 35.0
    keeps_answers: bool = False
    seed: int = 1


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Answers of one status: how many, and their latencies from the intended start."""

    count: int
    p50_ms: float
    p99_ms: float
    worst_ms: float


class OutcomeCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Describe what became of the requests of one phase.

    Attributes:
        offered: Requests that were to leave.
        seconds: Of the phase.
        late_p99_ms: How late they left for want of client time or connections.
        groups: By status, ``"closed"``, ``"reset"``, ``"refused"``, ``"silent"`` or ``"unsent"``.
        goodput: Good answers a second until the last answer.
        without_retry_after: Refusals that do not say when to come back.
        refusals_p99_ms: Of 429 and 503 together.
        late_refusals: Those of requests that were to leave more than five seconds after the phase began.
    """

    offered: int
    seconds: float
    late_p99_ms: float
    groups: dict[str, Group]
    goodput: float
    without_retry_after: int
    refusals_p99_ms: float
    late_refusals: int

    @property
    def statuses(self) -> dict[str, int]:
        """Return how many requests ended how."""
        return {status: group.count for status, group in self.groups.items()}


class ChaosReport(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run.

    Attributes:
        began: On the machine's monotonic clock.
        phases: One tally each.
        good_ticks: 200s by the time they came, in ticks.
        bad_ticks: Everything else, likewise.
        client_cores: Cores the client used.
        failures: When each request that got no answer was to leave and when it ended, seconds, and how; the first ones.
        answers: By status, digest header and checksum of the body, where the plan keeps them.
    """

    began: float
    phases: list[OutcomeCounts]
    good_ticks: list[int]
    bad_ticks: list[int]
    client_cores: float
    failures: list[tuple[float, float, str]]
    answers: dict[str, int]

    @property
    def statuses(self) -> dict[str, int]:
        """Of all phases together."""
        total = Counter[str]()
        for tally in self.phases:
            total.update(tally.statuses)
        return dict(total)
