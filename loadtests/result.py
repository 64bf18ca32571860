"""Describe the result of a run, as it is written to JSON and read again by reports and comparisons."""

from pathlib import Path
from typing import Any

import msgspec

from loadtests.task import Objective


class ModelResult(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of some of the requests: a phase, a model, or all that count.

    Attributes:
        name: Of the phase or model.
        seconds: How long it lasted.
        offered: Requests that were due.
        offered_rate: Of them, per second.
        good_rate: Right answers per second.
        latency_ms: Percentiles of the right answers' latency from when they were due, ``{"p50": ...}``.
        sent_ms: The same from when they really left, which is what most load generators report.
        lag_p99_ms: By how much one request of a hundred left late.
        missed_share: Share that failed, or took longer than the objective's p99.
        failed_share: Share that failed.
        outcomes: How many ended how.
    """

    name: str
    seconds: float
    offered: int
    offered_rate: float
    good_rate: float
    latency_ms: dict[str, float]
    sent_ms: dict[str, float]
    lag_p99_ms: float
    missed_share: float
    failed_share: float
    outcomes: dict[str, int]


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """A slice of time; ``at`` is its middle, in seconds from the beginning of the warm-up."""

    at: float
    offered_rate: float
    good_rate: float
    failed_rate: float
    p50_ms: float | None
    p99_ms: float | None


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """Describe what was used while requests were counted, in cores.

    Attributes:
        seconds: How long it was watched.
        server_cores: The server's processes together; ``None`` when they are not on this machine.
        busiest_process: The one of them that used most.
        server_processes: How many.
        client_share: The busiest generator process.
        client_cores: All generator processes.
        machine_share: Of all cores of the machine the load came from, everything that ran on it.
        stolen_share: Of them, what other machines took.
        network_mb: Megabytes per second over the interface that was used, both ways.
        network_limit_mb: What it can carry; ``None`` when it does not say, as the loopback.
        cores: Of the machine the load came from.
        server_mb: Megabytes of memory that the server's processes held at the end, what they share counted once;
            ``None`` when they are not on this machine.
    """

    seconds: float
    server_cores: float | None
    busiest_process: float | None
    server_processes: int
    client_share: float
    client_cores: float
    machine_share: float
    stolen_share: float
    network_mb: float
    network_limit_mb: float | None
    cores: int = 1
    server_mb: float | None = None

    @property
    def other_cores(self) -> float:
        """Taken by neither server nor generator; other machines' part of a shared one too."""
        busy = self.cores * (self.machine_share + self.stolen_share)
        return max(0.0, busy - (self.server_cores or 0.0) - self.client_cores)


class MeasuredValue(msgspec.Struct, frozen=True, kw_only=True):
    """Describe what the service's own ``/metrics`` counted meanwhile.

    Attributes:
        name: Of the metric, without what every label is the same.
        labels: That tell it from others.
        count: By how much it grew.
        mean: Of a histogram.
        p50: Of a histogram, as far as its buckets tell.
        p99: Likewise.
    """

    name: str
    labels: dict[str, str]
    count: float
    mean: float | None = None
    p50: float | None = None
    p99: float | None = None


class TimeWindow(msgspec.Struct, frozen=True, kw_only=True):
    """One try of a capacity search; ``blame`` is what, other than the service, made requests leave late in it."""

    rate: float
    stage: str
    part: ModelResult
    used: Used
    is_held: bool
    is_void: bool
    why: str
    blame: str = ""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a capacity search.

    Attributes:
        rate: The highest rate that held, confirmed; ``None`` when there is none to report.
        failed_rate: The lowest rate above it that did not.
        upper_missed_share: 95 % upper bound of the share of requests beyond the objective at ``rate``.
        knee: The sentence about it.
        limit: What limited.
        refused: Why nothing is reported.
        blocked: What, other than the service, ended the search; ``rate`` is a lower bound then.
        held_rate: The highest rate that held in any window, confirmed or not.
    """

    rate: float | None
    failed_rate: float | None
    upper_missed_share: float | None
    knee: str
    limit: str
    refused: str = ""
    blocked: str = ""
    held_rate: float | None = None


class LoadResult(msgspec.Struct, kw_only=True):
    """A run.

    Attributes:
        profile: What was offered.
        command: That asked for it.
        date: When it had ended.
        commit: Of the load test.
        host: That was asked.
        machine: The load came from.
        versions: Of Python and the packages that matter.
        models: Name, version, digest and family of each.
        weights: Their shares.
        arrivals: Poisson or constant; ``"closed"`` for users that wait for answers.
        seed: Of the arrivals.
        users: Of a closed loop.
        workers: Generator processes.
        objective: What was promised.
        lag_limit_ms: From when on the generator was late.
        whole: All counted requests.
        parts: By phase, the warm-up too.
        by_model: By model, counted only.
        moments: Over time.
        percentiles: Percentile to milliseconds, counted only.
        used: While requests were counted.
        metrics: The service's own.
        reconnections: Requests sent again because a server had closed an idle connection.
        windows: Of a capacity search.
        finding: Of a capacity search.
        client_limit: What, other than the service, made requests leave late, and how that showed; empty when nothing.
        is_interrupted: Whether it was ended before its time; its figures are of what was measured until then.
        verdict: Sentences about what failed; none when the run passed.
    """

    profile: str
    command: str
    date: str
    commit: str
    host: str
    machine: dict[str, Any]
    versions: dict[str, str]
    models: list[list[str]]
    weights: dict[str, float]
    arrivals: str
    seed: int
    users: int
    workers: int
    objective: Objective
    lag_limit_ms: float
    whole: ModelResult
    parts: list[ModelResult]
    by_model: list[ModelResult]
    moments: list[Moment]
    percentiles: list[tuple[float, float]]
    used: Used
    metrics: list[MeasuredValue]
    reconnections: int = 0
    windows: list[TimeWindow] = []
    finding: Finding | None = None
    client_limit: str = ""
    is_interrupted: bool = False
    verdict: list[str] = []


def write(result: LoadResult, path: Path) -> None:
    """Write a result, readable by people too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")


def read(path: Path) -> LoadResult:
    """Return a written result.

    Raises:
        msgspec.MsgspecError: If it is none.
    """
    return msgspec.json.decode(path.read_bytes(), type=LoadResult)
