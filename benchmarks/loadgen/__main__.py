"""Our open-loop generator against k6 and wrk: ``python -m benchmarks.loadgen``.

The same service, the same constant rate, the same kind of questions, the generators in turn; what counts is the median
over the rounds. k6 and wrk time a request from when they sent it, so that is compared, and must agree within a tenth;
what we report, from when it was due, stands beside it. The first services are stubs that compute for a known time;
``--url`` and ``--model`` add a real one. Rates are far below capacity, where arrivals do not queue.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import click
import msgspec
from tqdm import tqdm

from benchmarks.harness import machine
from benchmarks.loadgen.generators import GENERATORS, OURS, SHARES, GeneratedLoad, Percentiles
from benchmarks.serving.__main__ import RESULTS
from loadtests.mlperf.library import random_library
from loadtests.mlperf.served import Address, find_served

QUESTIONS = 64
CLOSENESS = 0.10
FROM_DUE = "loadtests, from when it was due"
# What the stubs compute for, milliseconds, and how many they are asked per second: a third of what they could.
STUBS = {2.0: 150.0, 10.0: 30.0}


class CrosscheckRow(msgspec.Struct, frozen=True, kw_only=True):
    """One generator on one service: medians over the rounds, and each as a ratio to our generator's."""

    service: str
    rate: float
    generator: str
    medians: dict[str, float]
    ratios: dict[str, float]
    answers: int
    failures: int


@contextmanager
def stub(work_ms: float) -> Iterator[Address]:
    """A service that computes for a known time for each answer, one after the other."""
    command = [sys.executable, "-m", "loadtests.stub", "--work-ms", str(work_ms)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603  our own
    try:
        assert process.stdout is not None
        yield Address(host="127.0.0.1", port=int(process.stdout.readline()))
    finally:
        process.kill()
        process.wait()


def compare(service: str, load: GeneratedLoad, rounds: int) -> list[CrosscheckRow]:
    """Return every generator in turn, in another order each round."""
    found: dict[str, list[Percentiles]] = {name: [] for name in GENERATORS}
    names = list(GENERATORS)
    for number in tqdm(range(rounds), service, leave=False):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            with TemporaryDirectory(prefix="lectern-") as folder:
                found[name].append(GENERATORS[name](load, Path(folder)))
    rows = [_row(service, load.rate, name, many, found[OURS]) for name, many in found.items()]
    due = [msgspec.structs.replace(one, **one.due) for one in found[OURS]]
    return [*rows, _row(service, load.rate, FROM_DUE, due, found[OURS])]


def _row(
    service: str, rate: float, name: str, many: Sequence[Percentiles], ours: Sequence[Percentiles]
) -> CrosscheckRow:
    medians = {share: median(getattr(one, share) for one in many) for share in SHARES}
    return CrosscheckRow(
        service=service,
        rate=rate,
        generator=name,
        medians={share: round(value, 3) for share, value in medians.items()},
        ratios={share: round(medians[share] / median(getattr(one, share) for one in ours), 3) for share in SHARES},
        answers=sum(one.answers for one in many),
        failures=sum(one.failures for one in many),
    )


def disagreements(rows: Sequence[CrosscheckRow]) -> list[str]:
    """Return which percentiles of whom are further apart than a tenth, or were not measured over all answers."""
    found = [f"{row.service}, {row.generator}: {row.failures} failures" for row in rows if row.failures]
    return found + [
        f"{row.service}, {row.generator}: {share} is {ratio:.2f} times ours"
        for row in rows
        if row.generator != FROM_DUE
        for share, ratio in row.ratios.items()
        if not 1 / (1 + CLOSENESS) <= ratio <= 1 + CLOSENESS
    ]


def markdown(rows: Sequence[CrosscheckRow], about: str) -> str:
    """Return the table."""
    lines = [
        "# Our open-loop generator, k6 and wrk",
        "",
        f"Constant arrivals; medians of the rounds in ms, in brackets as a ratio to ours. {about}",
        "",
        "| service | per second | generator | p50 | p90 | p99 | answers | failures |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [f"{row.medians[share]:.2f} ({row.ratios[share]:.2f})" for share in SHARES]
        figures = f"{' | '.join(cells)} | {row.answers} | {row.failures}"
        lines.append(f"| {row.service} | {row.rate:g} | {row.generator} | {figures} |")
    apart = disagreements(rows)
    lines += ["", *(f"- {sentence}" for sentence in apart or ["All percentiles agree within a tenth."]), ""]
    return "\n".join(lines)


def questions(address: Address, model: str, rate: float, seconds: int) -> GeneratedLoad:
    """Return what is asked of one model: random valid requests with one instance each."""
    (served,) = find_served(address, [model])
    samples = random_library(served, QUESTIONS, seed=7).samples
    bodies = [b'{"instances":[%b]}' % sample for sample in samples]
    return GeneratedLoad(address=address, model=model, bodies=bodies, rate=rate, seconds=seconds)


@click.command(help=__doc__)
@click.option("--url", help="Of a real service, beside the stubs.")
@click.option("--model", "models", multiple=True, help="MODEL=RATE of it, a third of what it can; may be repeated.")
@click.option("--stubs/--no-stubs", default=True, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--seconds", default=8, show_default=True, help="Of each generator in each round, after a warm-up.")
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, help="Folder of crosscheck.json and .md.")
def main(url: str | None, models: Sequence[str], stubs: bool, rounds: int, seconds: int, out: Path) -> None:
    """The command line."""
    if missing := [name for name in ("k6", "wrk") if shutil.which(name) is None]:
        raise click.ClickException(f"{', '.join(missing)}: not on the path")
    described, rows = machine.describe(), list[CrosscheckRow]()
    for work_ms, rate in STUBS.items() if stubs else ():
        with stub(work_ms) as address:
            rows += compare(f"stub, {work_ms:g} ms", questions(address, "viewcount", rate, seconds), rounds)
    for word in models if url else ():
        model, _, wanted = word.partition("=")
        rows += compare(model, questions(Address.of(str(url)), model, float(wanted), seconds), rounds)
    words = [word for word in sys.argv[1:] if not word.startswith("--out")]
    about = (
        f"{rounds} rounds of {seconds} s, {described['cores']} cores of {described['cpu']}, commit {machine.commit()}, "
        f"{date.today().isoformat()}; `{' '.join(['python -m benchmarks.loadgen', *words])}`"
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "crosscheck.md").write_text(markdown(rows, about))
    content: dict[str, Any] = {"about": about, "machine": described, "rows": rows}
    (out / "crosscheck.json").write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
    click.echo((out / "crosscheck.md").read_text())
    if apart := disagreements(rows):
        sys.exit("\n".join(apart))


if __name__ == "__main__":
    main()
