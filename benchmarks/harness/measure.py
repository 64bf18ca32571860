"""One timed run: a server asked by a client, and what both used meanwhile."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, sleep

import msgspec

from benchmarks.harness import wrk
from benchmarks.harness.closed_loop import ClosedLoopCounts, ClosedLoopPlan
from benchmarks.harness.machine import CLIENT_CORES, SERVER_CORES, cpu_seconds, machine_seconds, on_cores
from benchmarks.harness.protocols import ProtocolCall
from benchmarks.harness.results import RateSample
from benchmarks.harness.servers import Server
from benchmarks.harness.upper_bound import BoundTask, UpperBound
from benchmarks.harness.workloads import BenchmarkWorkload
from models.paths import REPOSITORY

WARM_SECONDS = 1
# For a server that did not answer every connection twice while it was warmed up.
LONGER = 4
BURSTS = 5
SETTLE_SECONDS = 0.1
SETTLE_STEPS = 30
# Ray and PyTriton are never quite idle.
IDLE_CORES = 0.4


class LoadClient:
    """wrk or the Python client, on the client's core.

    Attributes:
        name: ``"wrk"`` or ``"python"``.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._script, self._requests = folder / "requests.lua", list[bytes]()

    def load(self, calls: Sequence[ProtocolCall]) -> None:
        """Take the calls that the next runs send in turn."""
        self._requests = [call.to_bytes() for call in calls]
        if self.name == "wrk":
            wrk.write_script(calls, self._script)

    def run(self, server: Server, connections: int, seconds: int) -> ClosedLoopCounts:
        """Return one run.

        Raises:
            OSError: If the client fails.
        """
        with on_cores(client_cores(server)):
            if self.name == "wrk":
                return wrk.run(self._script, server.port, connections, seconds)
            plan = ClosedLoopPlan(port=server.port, requests=self._requests, connections=connections, seconds=seconds)
            return drive(plan)[0]


def client_cores(server: Server) -> set[int]:
    """The other core, unless the server has both."""
    return set(CLIENT_CORES if server.peer.cores == SERVER_CORES else server.peer.cores)


def drive(plan: ClosedLoopPlan) -> list[ClosedLoopCounts]:
    """Return the tallies of the Python client, in a process of its own.

    Raises:
        OSError: If it fails.
    """
    return msgspec.json.decode(
        _run("benchmarks.harness.closed_loop", msgspec.msgpack.encode(plan)), type=list[ClosedLoopCounts]
    )


def limit(task: BoundTask) -> UpperBound:
    """Return the in-process limits of a task, on the server's core."""
    with on_cores(SERVER_CORES):
        return msgspec.json.decode(
            _run("benchmarks.harness.upper_bound", msgspec.msgpack.encode(task)), type=UpperBound
        )


def _run(module: str, content: bytes) -> bytes:
    done = subprocess.run([sys.executable, "-m", module], input=content, capture_output=True, cwd=REPOSITORY)  # noqa: S603  our own
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise OSError(f"{module} failed: {lines[-1] if lines else done.returncode}")
    return done.stdout


def measure(
    server: Server,
    workload: BenchmarkWorkload,
    connections: int,
    seconds: int,
    client: LoadClient,
    *,
    is_warm: bool = False,
) -> RateSample:
    """Warm up where it is not warm already, then time one cell.

    Raises:
        OSError: If the client fails.
    """
    calls = [server.peer.envelope.call(workload.model, body, workload.media_type) for body in workload.bodies]
    client.load(calls)
    if not is_warm:
        settle(server)
        if client.run(server, connections, WARM_SECONDS).answers < 2 * connections:
            seconds *= LONGER
    settle(server)
    processes = server.tree()
    start, used, (everyone, stolen) = perf_counter(), cpu_seconds(processes), machine_seconds()
    tally = client.run(server, connections, seconds)
    wall, (everyone_after, stolen_after) = perf_counter() - start, machine_seconds()
    used = cpu_seconds(server.tree()) - used
    others = everyone_after - everyone - used - tally.cpu_seconds + stolen_after - stolen
    return RateSample(
        rate=tally.answers / tally.seconds,
        p50_ms=tally.p50_ms,
        p99_ms=tally.p99_ms,
        server_us=1e6 * used / max(1, tally.answers),
        server_cores=used / tally.seconds,
        client_cores=tally.cpu_seconds / tally.seconds,
        other_cores=max(0.0, others / wall),
        errors=tally.errors / max(1, sum(tally.statuses.values())),
    )


def settle(server: Server) -> None:
    """Wait, not for ever, until the server has done with the requests that the last run abandoned."""
    for _ in range(SETTLE_STEPS):
        used = cpu_seconds(server.tree())
        sleep(SETTLE_SECONDS)
        if cpu_seconds(server.tree()) - used < SETTLE_SECONDS * IDLE_CORES:
            return


def burst(server: Server, bodies: Sequence[bytes], model: str) -> dict[str, list[float]]:
    """Milliseconds until the last answer to bodies sent one by one, and all at once; each some times.

    Raises:
        OSError: If the client fails or an answer is no 200.
    """
    requests = [server.peer.envelope.call(model, body).to_bytes() for body in bodies]
    found = {}
    for name, connections in (("one by one", 1), ("together", len(requests))):
        plan = ClosedLoopPlan(
            port=server.port, requests=requests, connections=connections, total=len(requests), repeats=BURSTS + 1
        )
        with on_cores(client_cores(server)):
            tallies = drive(plan)
        if any(tally.errors for tally in tallies):
            raise OSError("not every answer was a 200")
        found[name] = [1000 * tally.seconds for tally in tallies[1:]]
    return found
