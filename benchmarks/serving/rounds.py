"""The rounds of a run: everyone in turn, in an order that moves on by one from round to round."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.harness.checks import check, expected_answers
from benchmarks.harness.environments import Unavailable
from benchmarks.harness.machine import memory_mb
from benchmarks.harness.measure import LoadClient, burst, limit, measure
from benchmarks.harness.peers import PAIR, Peer
from benchmarks.harness.results import ResultRow, Results
from benchmarks.harness.servers import Server, ask, serving, without_paths
from benchmarks.harness.upper_bound import BoundTask
from benchmarks.harness.workloads import MOLECULE_KEY, BenchmarkWorkload

PAIR_CONNECTIONS = 64
PAIR_WORKLOADS = ("viewcount", "image", "tagging")
LIMITS = "limits"
MOLECULE = "molecule"


class Rounds:
    """Describe what is measured, with what, and into which results."""

    def __init__(
        self,
        results: Results,
        workloads: Sequence[BenchmarkWorkload],
        molecules: Sequence[bytes],
        examples: Mapping[str, bytes],
        client: LoadClient,
        folder: Path,
    ) -> None:
        self.results, self.workloads, self.molecules = results, workloads, molecules
        self.examples, self.client, self.folder = examples, client, folder
        self.expected = {workload.key: expected_answers(workload) for workload in workloads}
        self.checked: set[tuple[str, str]] = set()

    @property
    def asked(self) -> list[str]:
        """Return the models that are timed."""
        models = [workload.model for workload in self.workloads if not workload.is_ours]
        return list(dict.fromkeys([*models, *([MOLECULE] if self.molecules else [])]))

    def serve(self, peer: Peer, interpreter: Path, *models: str) -> AbstractContextManager[Server]:
        """Return the peer's server, running, with the models (all of them when none is named)."""
        examples = {model: self.examples[model] for model in models or self.examples}
        return serving(peer, interpreter, self.folder, examples)

    def run(self, number: int, peers: Mapping[Peer, Path]) -> None:
        """One round: the limits and every peer that can be started, each with all its workloads."""
        turns: list[Peer | None] = [None, *peers]
        start = number % len(turns)
        for peer in tqdm([*turns[start:], *turns[:start]], f"round {number + 1}", leave=False):
            if peer is None:
                self.measure_limits()
            elif not (self.row(peer).reason and not self.row(peer).ready_seconds):
                self._visit(peer, peers[peer])

    def ask_all(self, peers: Mapping[Peer, Path]) -> dict[str, str]:
        """Start every peer in turn and compare its answers, without timing any; what went wrong, by peer."""
        wrong = {}
        for peer, interpreter in tqdm(peers.items(), "peers", leave=False):
            try:
                with self.serve(peer, interpreter) as server:
                    for workload in self.forms(peer):
                        self.check(server, workload)
            except (Unavailable, OSError) as error:
                self._give_up(self.row(peer), error)
            row = self.row(peer)
            reasons = [row.reason] if row.reason else [f"{key}: {reason}" for key, reason in row.refused.items()]
            if reasons:
                wrong[peer.key] = "; ".join(reasons)
        return wrong

    def row(self, peer: Peer) -> ResultRow:
        """Return the peer's row, empty at first."""
        found = next((row for row in self.results.rows if row.key == peer.key), None)
        if found is None:
            found = ResultRow(key=peer.key, title=peer.title)
            self.results.rows.append(found)
        return found

    def cells(self, peer: Peer) -> list[tuple[BenchmarkWorkload, int]]:
        """Return the peer's workloads and connections."""
        if peer in PAIR:
            return [(work, PAIR_CONNECTIONS) for work in self.workloads if work.key in PAIR_WORKLOADS]
        return [(work, count) for work in self.forms(peer) for count in work.connections]

    def forms(self, peer: Peer) -> list[BenchmarkWorkload]:
        """List the workloads that the peer can read."""
        return [work for work in self.workloads if peer.is_ours or not work.is_ours]

    def measure_limits(self) -> None:
        """The in-process limits of every workload."""
        seconds = self.results.seconds / 10
        for workload in tqdm(self.workloads, LIMITS, leave=False):
            if not self.expected[workload.key]:
                continue
            task = BoundTask(
                model=workload.model, bodies=workload.bodies, media_type=workload.media_type, seconds=seconds
            )
            found, bound = limit(task), self.results.bound(workload.key)
            bound.alone.append(found.alone)
            for kept, rates in ((bound.engine, found.engine), (bound.codec, found.codec)):
                for size, rate in rates.items():
                    kept.setdefault(str(size), []).append(rate)
        if self.molecules:
            found = limit(BoundTask(model=MOLECULE, bodies=list(self.molecules), is_burst=True))
            for name, time in found.burst_ms.items():
                self.results.bound(MOLECULE_KEY).burst_ms.setdefault(name, []).append(time)

    def check(self, server: Server, workload: BenchmarkWorkload) -> bool:
        """Return whether the server answers a workload rightly; compared once in a run."""
        row, key = self.row(server.peer), (server.peer.key, workload.key)
        if key not in self.checked:
            self.checked.add(key)
            try:
                check(server, workload, self.expected[workload.key])
            except (Unavailable, OSError) as error:
                self._refuse(row, workload.key, error)
        return workload.key not in row.refused

    def time(self, server: Server, workload: BenchmarkWorkload, connections: int, *, is_warm: bool = False) -> None:
        """Time one cell and keep the sample."""
        peer, seconds = server.peer, int(self.results.seconds)
        try:
            sample = measure(server, workload, connections, seconds, self.client, is_warm=is_warm)
        except OSError as error:
            self._refuse(self.row(peer), f"{workload.key}, c={connections}", error)
            return
        self.results.add(peer.key, workload.key, connections, sample)

    def _visit(self, peer: Peer, interpreter: Path) -> None:
        """One server with all models; where each is to be served alone, one more for each model that is timed."""
        row = self.row(peer)
        try:
            with self.serve(peer, interpreter) as server:
                row.ready_seconds.append(server.ready_seconds)
                if not peer.is_alone:
                    self._measure(server, row, list(self.examples))
                for model, body in self.examples.items():
                    ask(server.port, peer.envelope.call(model, body))
                row.memory_mb.append(memory_mb(server.tree()))
            for model in self.asked if peer.is_alone else ():
                with self.serve(peer, interpreter, model) as server:
                    self._measure(server, row, [model])
        except (Unavailable, OSError) as error:
            self._give_up(row, error)

    def _measure(self, server: Server, row: ResultRow, models: Sequence[str]) -> None:
        cells = [cell for cell in self.cells(server.peer) if cell[0].model in models]
        for workload, connections in tqdm(cells, row.key, leave=False):
            if self.check(server, workload):
                self.time(server, workload, connections)
        if self.molecules and MOLECULE in models and server.peer not in PAIR:
            self._burst(server, row)

    def _burst(self, server: Server, row: ResultRow) -> None:
        try:
            found = burst(server, self.molecules, MOLECULE)
        except OSError as error:
            self._refuse(row, MOLECULE_KEY, error)
            return
        for name, times in found.items():
            row.burst_ms.setdefault(name, []).extend(times)

    def _give_up(self, row: ResultRow, error: Any) -> None:
        row.reason = without_paths(str(error))
        tqdm.write(f"{row.key}: {error}")

    def _refuse(self, row: ResultRow, what: str, error: Any) -> None:
        row.refused[what] = without_paths(str(error))
        tqdm.write(f"{row.key}, {what}: {error}")
