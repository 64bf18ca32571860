"""The short form: Lectern against plain FastAPI, and whether it is still as far ahead as it was."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import msgspec
from tqdm import tqdm

from benchmarks.harness.peers import FASTAPI, LECTERN, Peer
from benchmarks.serving.rounds import Rounds

CELLS = (("viewcount", 64), ("tagging", 16))
NOISE = 0.5


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Describe how many times FastAPI's rate Lectern's was, and how much of that a run may lose by chance."""

    ratio: float
    noise: float = NOISE

    @property
    def least(self) -> float:
        """Return the lowest ratio that is not a fall."""
        return self.ratio * (1 - self.noise)


class Floor(msgspec.Struct, frozen=True, kw_only=True):
    """The marks, and what they were measured with."""

    marks: dict[str, Mark]
    commit: str
    command: str
    machine: str


def verdict(found: Mapping[str, float], floor: Floor) -> list[str]:
    """Return a sentence for every ratio that fell below its mark, or is not there at all."""
    sentences = []
    for name, mark in floor.marks.items():
        ratio = found.get(name)
        if ratio is None:
            sentences.append(f"{name}: nothing was measured, the mark is {mark.ratio:.2f} times FastAPI.")
        elif not ratio >= mark.least:
            sentences.append(
                f"{name}: Lectern is {ratio:.2f} times as fast as FastAPI; it was {mark.ratio:.2f} times at "
                f"{floor.commit[:10]}, and less than {mark.least:.2f} is no noise."
            )
    return sentences


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median over the rounds of our rate in theirs."""
    return median(mine / other for mine, other in zip(ours, theirs, strict=True))


def measure(rounds: Rounds, interpreters: Mapping[Peer, Path], count: int) -> dict[str, float]:
    """The ratio of each cell, from rounds in which both servers run and take turns within a second of each other."""
    works = {workload.key: workload for workload in rounds.workloads}
    with ExitStack() as stack:
        servers = [stack.enter_context(rounds.serve(peer, interpreters[peer])) for peer in (LECTERN, FASTAPI)]
        good = [name for name, _ in CELLS if all(map(rounds.check, servers, [works[name]] * 2))]
        for number in tqdm(range(count), "round"):
            for name, connections in CELLS:
                for server in servers[:: 1 if number % 2 else -1]:
                    if name in good:
                        rounds.time(server, works[name], connections, is_warm=number > 0)
    return {
        f"{name}, c={connections}": _ratio(rounds, name, connections) for name, connections in CELLS if name in good
    }


def _ratio(rounds: Rounds, workload: str, connections: int) -> float:
    cells = [rounds.results.cell(peer.key, workload, connections) for peer in (LECTERN, FASTAPI)]
    ours, theirs = ([sample.rate for sample in cell.samples if not sample.errors] if cell else [] for cell in cells)
    return ratio(ours, theirs) if ours and len(ours) == len(theirs) else 0.0


def read(path: Path) -> Floor:
    """Return the committed floor."""
    return msgspec.json.decode(path.read_bytes(), type=Floor)


def write(floor: Floor, path: Path) -> None:
    """Write a new floor."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(floor), indent=2) + b"\n")
