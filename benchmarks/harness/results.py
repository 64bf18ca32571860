"""Keep the results of a run as one JSON file."""

import json
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

MAX_OTHERS = 0.25
BUSY_CLIENT, BUSY_SERVER = 0.95, 0.90


class RateSample(msgspec.Struct, frozen=True, kw_only=True):
    """One timed run of one cell.

    Attributes:
        rate: Good and bad answers per second.
        p50_ms: Median latency.
        p99_ms: 99th percentile.
        server_us: CPU time of the server's whole tree per answer.
        server_cores: Cores the server used.
        client_cores: Cores the client used.
        other_cores: Cores that everyone else used, or that other machines took.
        errors: Share of requests without a 200.
    """

    rate: float
    p50_ms: float
    p99_ms: float
    server_us: float
    server_cores: float
    client_cores: float
    other_cores: float
    errors: float

    @property
    def is_quiet(self) -> bool:
        """Return whether nobody else disturbed it, or the server had its core anyway."""
        return self.other_cores < MAX_OTHERS or self.server_cores > MAX_SHARE_ANYWAY

    @property
    def is_client_bound(self) -> bool:
        """Return whether it measured the client: it had no time left, and the server had."""
        return self.client_cores > BUSY_CLIENT and self.server_cores < BUSY_SERVER


MAX_SHARE_ANYWAY = 0.95


class ResultCell(msgspec.Struct, kw_only=True):
    """All rounds of one peer, workload and number of connections."""

    peer: str
    workload: str
    connections: int
    samples: list[RateSample] = []

    @property
    def counting(self) -> list[RateSample]:
        """Return the undisturbed samples; all of them when there is none."""
        return [sample for sample in self.samples if sample.is_quiet] or self.samples

    def middle(self, field: str) -> float:
        """Return the median of one field."""
        return float(median(getattr(sample, field) for sample in self.counting))

    @property
    def spread(self) -> tuple[float, float]:
        """Lowest and highest rate."""
        rates = [sample.rate for sample in self.counting]
        return min(rates), max(rates)

    @property
    def marks(self) -> str:
        """Return what a reader must know: ``!`` errors, ``†`` client bound, ``~`` never undisturbed."""
        found = "!" if any(sample.errors for sample in self.samples) else ""
        found += "†" if any(sample.is_client_bound for sample in self.counting) else ""
        return found + ("" if any(sample.is_quiet for sample in self.samples) else "~")


class ResultRow(msgspec.Struct, kw_only=True):
    """One peer: what it is, whether it could be measured, and what it costs while nobody asks.

    Attributes:
        key: On the command line.
        title: In the tables.
        reason: Why it was not measured, or not to the end.
        refused: Workloads it does not serve, or serves wrongly, and why.
        ready_seconds: From its start until every model had answered, each round.
        memory_mb: Of the tree after a round's load, each round.
        burst_ms: Until the last of 64 molecules was answered, one by one and together, each round.
        versions: Of its packages.
    """

    key: str
    title: str
    reason: str = ""
    refused: dict[str, str] = {}
    ready_seconds: list[float] = []
    memory_mb: list[dict[str, float]] = []
    burst_ms: dict[str, list[float]] = {}
    versions: dict[str, str] = {}


class Heading(msgspec.Struct, kw_only=True):
    """One workload, as the tables need it."""

    key: str
    title: str
    connections: list[int]
    unit: str
    units: float
    is_ours: bool = False


class Bound(msgspec.Struct, kw_only=True):
    """The in-process limits of one workload: requests per second by batch size, each round."""

    workload: str
    engine: dict[str, list[float]] = {}
    codec: dict[str, list[float]] = {}
    alone: list[float] = []
    burst_ms: dict[str, list[float]] = {}

    def best(self, kind: str) -> tuple[float, int]:
        """Return the highest median rate of ``"engine"`` or ``"codec"`` and its batch size; zeros when not measured."""
        rates = {int(size): median(found) for size, found in getattr(self, kind).items()}
        return max(((rate, size) for size, rate in rates.items()), default=(0.0, 0))


class Results(msgspec.Struct, kw_only=True):
    """A whole run."""

    command: str
    commit: str
    date: str
    machine: dict[str, Any]
    client: str
    seconds: float
    rounds: int
    workloads: list[Heading]
    absent: list[str] = []
    rows: list[ResultRow] = []
    bounds: list[Bound] = []
    cells: list[ResultCell] = []

    def cell(self, peer: str, workload: str, connections: int) -> ResultCell | None:
        """Return the cell, if it was measured."""
        wanted = (peer, workload, connections)
        found = (cell for cell in self.cells if (cell.peer, cell.workload, cell.connections) == wanted)
        return next(found, None)

    def add(self, peer: str, workload: str, connections: int, sample: RateSample) -> None:
        """Keep a sample."""
        cell = self.cell(peer, workload, connections)
        if cell is None:
            cell = ResultCell(peer=peer, workload=workload, connections=connections)
            self.cells.append(cell)
        cell.samples.append(sample)

    def bound(self, workload: str) -> Bound:
        """Return the workload's limits, empty at first."""
        found = next((bound for bound in self.bounds if bound.workload == workload), None)
        if found is None:
            found = Bound(workload=workload)
            self.bounds.append(found)
        return found


def write(results: Results, path: Path) -> None:
    """Write the results, every list entry on a line of its own."""
    lines = []
    for name, value in msgspec.to_builtins(results).items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            entries = ",\n".join(f"  {json.dumps(_short(entry), ensure_ascii=False)}" for entry in value)
            lines.append(f"{json.dumps(name)}: [\n{entries}\n]")
        else:
            lines.append(f"{json.dumps(name)}: {json.dumps(_short(value), ensure_ascii=False)}")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def load(path: Path) -> Results:
    """Read results back."""
    return msgspec.json.decode(path.read_bytes(), type=Results)


def _short(value: Any) -> Any:
    """Return the same with numbers of five digits: more is noise."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _short(one) for key, one in value.items()}
    return [_short(one) for one in value] if isinstance(value, list) else value
