"""Lectern against its peers: ``python -m benchmarks.serving``.

Every server runs the same artifacts behind the same codec, alone on the first core, and is asked from the last one.
Answers are compared with the in-process ones before anything is timed. Results go to ``benchmarks/results``. Nothing
else should run meanwhile.
"""

import signal
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from tqdm import tqdm

from benchmarks.harness import environments, machine, results, wrk
from benchmarks.harness.environments import Unavailable
from benchmarks.harness.measure import LoadClient
from benchmarks.harness.peers import FASTAPI, LECTERN, PAIR, PEERS, Peer
from benchmarks.harness.results import Heading, Results
from benchmarks.harness.servers import install_artifacts
from benchmarks.harness.workloads import KEYS, MOLECULE_KEY, BenchmarkWorkload, examples, make, molecules
from benchmarks.serving import regression_gate, report
from benchmarks.serving.rounds import Rounds
from models.paths import REPOSITORY

RESULTS = REPOSITORY / "benchmarks/results"
FLOOR = RESULTS / "floor.json"
SHORT_WORKLOADS = tuple(name for name, _ in regression_gate.CELLS)


def chosen(text: str, known: Sequence[str]) -> list[str]:
    """Return the comma-separated names, all of them when there are none.

    Raises:
        click.BadParameter: If one is not known.
    """
    names = [name.strip() for name in text.split(",") if name.strip()] or list(known)
    if strange := set(names) - set(known):
        raise click.BadParameter(f"{', '.join(sorted(strange))}: not among {', '.join(known)}")
    return [name for name in known if name in names]


def start(command: str, client: str, rounds: int, seconds: int, workloads: Sequence[BenchmarkWorkload]) -> Results:
    """Empty results of a run."""
    headings = [
        Heading(
            key=work.key,
            title=work.title,
            connections=list(work.connections),
            unit=work.unit,
            units=work.units,
            is_ours=work.is_ours,
        )
        for work in workloads
    ]
    return Results(
        command=command,
        commit=machine.commit(),
        date=date.today().isoformat(),
        machine=machine.describe(),
        client=client,
        seconds=seconds,
        rounds=rounds,
        workloads=headings,
    )


def build(peers: Sequence[Peer], rounds: Rounds) -> dict[Peer, Path]:
    """Return the interpreter of every peer that has one; the others' rows say why not."""
    found = {}
    for peer in tqdm(peers, "environments", leave=False):
        row = rounds.row(peer)
        try:
            interpreter = Path(sys.executable)
            if peer.module is not None:
                interpreter = environments.build(peer.environment, environments.needs_of(peer.module))
            row.versions = environments.versions(interpreter)
            found[peer] = interpreter
        except Unavailable as error:
            row.reason = str(error)
            tqdm.write(f"{peer.key}: {error}")
    return found


def save(found: Results, folder: Path) -> None:
    """Write the JSON, the tables and the picture."""
    from benchmarks.serving.plot import draw  # the short form, in CI, draws nothing

    folder.mkdir(parents=True, exist_ok=True)
    results.write(found, folder / "serving.json")
    (folder / "serving.md").write_text(report.markdown(found))
    draw(found, folder / "serving.png")


def run_all(rounds: Rounds, peers: Sequence[Peer], out: Path) -> None:
    """Every round; the results so far are on disk after each."""
    interpreters = build(peers, rounds)
    for number in tqdm(range(rounds.results.rounds), "rounds"):
        rounds.run(number, interpreters)
        save(rounds.results, out)
    click.echo((out / "serving.md").read_text())


def run_short(rounds: Rounds, *, keep: bool) -> None:
    """The short form; ends the program with status 1 when Lectern fell behind, or writes a new floor."""
    interpreters = build((LECTERN, FASTAPI), rounds)
    if len(interpreters) < 2:
        sys.exit("lectern: nothing to compare with")
    found = regression_gate.measure(rounds, interpreters, rounds.results.rounds)
    for name, ratio in found.items():
        click.echo(f"{name}: Lectern is {ratio:.2f} times as fast as FastAPI")
    if keep:
        marks = {name: regression_gate.Mark(ratio=round(ratio, 2)) for name, ratio in found.items()}
        known = rounds.results
        regression_gate.write(
            regression_gate.Floor(
                marks=marks, commit=known.commit, command=known.command, machine=known.machine["cpu"]
            ),
            FLOOR,
        )
    elif sentences := regression_gate.verdict(found, regression_gate.read(FLOOR)):
        sys.exit("\n".join(sentences))


def run_check(rounds: Rounds, peers: Sequence[Peer]) -> None:
    """Ask every peer that can be installed; ends the program with status 1 where one did not answer rightly."""
    interpreters = build(peers, rounds)
    wrong = rounds.ask_all(interpreters)
    for peer in peers:
        said = "not installed: " + (rounds.row(peer).reason or "") if peer not in interpreters else "answers rightly"
        click.echo(f"{peer.key}: {wrong.get(peer.key, said)}")
    if wrong:
        sys.exit(f"{len(wrong)} of {len(interpreters)} servers did not answer rightly: {', '.join(wrong)}")


@click.command(help=__doc__)
@click.option("--peers", default="", help=f"Of {','.join(peer.key for peer in PEERS + PAIR)}; all by default.")
@click.option("--workloads", default="", help=f"Of {','.join(KEYS)}; all by default.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--seconds", default=2, show_default=True, help="For each cell, after one second of warm-up.")
@click.option("--client", type=click.Choice(["wrk", "python"]), help="wrk where it is on the path.")
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the results.")
@click.option("--short", is_flag=True, help="Only Lectern against plain FastAPI; status 1 when it fell behind.")
@click.option("--check", "is_check", is_flag=True, help="Time nothing: start and ask each; status 1 for a wrong one.")
@click.option("--write-floor", is_flag=True, help="With --short: keep what is found as the new floor.")
def main(
    peers: str,
    workloads: str,
    rounds: int,
    seconds: int,
    client: str | None,
    out: Path,
    short: bool,
    is_check: bool,
    write_floor: bool,
) -> None:
    """Measure, or check, what the command line asks for."""
    keys = chosen(workloads, KEYS) if not short else SHORT_WORKLOADS
    names = chosen(peers, [peer.key for peer in PEERS + PAIR])
    wanted = [peer for peer in PEERS + PAIR if peer.key in names]
    client = "python" if short else client or ("wrk" if wrk.is_here() else "python")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    machine.adopt_orphans()
    try:
        with TemporaryDirectory(prefix="lectern-") as home:
            works = make(keys)
            found = start(_command(), client, rounds, 1 if short else seconds, works)
            install_artifacts(Path(home))
            arrivals = molecules() if MOLECULE_KEY in keys else []
            there = {work.key for work in works} | ({MOLECULE_KEY} if arrivals else set())
            found.absent = [key for key in keys if key not in there]
            all_rounds = Rounds(found, works, arrivals, examples(), LoadClient(client, Path(home)), Path(home))
            if short:
                run_short(all_rounds, keep=write_floor)
            elif is_check:
                run_check(all_rounds, wanted)
            else:
                run_all(all_rounds, wanted, out.resolve())
    finally:
        machine.end_descendants()


def _command() -> str:
    """Return how this run was asked for, without where its results go."""
    words = iter(sys.argv[1:])
    kept = [word for word in words if not (word == "--out" and next(words, "")) and not word.startswith("--out=")]
    return " ".join(["python -m benchmarks.serving", *kept])


if __name__ == "__main__":
    main()
