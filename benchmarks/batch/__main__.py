"""Batch jobs beside what this machine could do at most: ``python -m benchmarks.batch``.

Each job is the real command, in processes of its own, from the start of the interpreter to the committed output. Beside
it, in the same round: the limit (``benchmarks/batch/limit.py``). They take turns, and the median of the rounds counts.
A job of one row shows what starting costs; the script people write (``benchmarks/batch/plain.py``) is run once. Nothing
else should run meanwhile; the computing of both, which says most where something did, stands beside the time.
"""

import json
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any, NamedTuple

import click
import msgspec
import psutil
from tqdm import tqdm

from benchmarks.batch.inputs import MAKERS
from benchmarks.batch.limit import Seconds
from benchmarks.harness import machine
from models.paths import REPOSITORY

RESULTS = REPOSITORY / "benchmarks" / "results"
SAMPLE_SECONDS = 0.05


class Work(NamedTuple):
    """One comparison: a model, an input, and the bar a job has to reach of the limit."""

    model: str
    source: str
    rows: int
    bar: float | None
    what: str


WORKS = (
    Work("viewcount", "views.csv", 1_000_000, 0.6, "1,000,000 channels of 56 days, CSV to Parquet"),
    Work("tagging", "sentences.conllu", 12_544, 0.8, "EWT train, 204,577 words, CoNLL-U to Parquet"),
    Work("tagging", "corpus.conllu", 100_352, 0.8, "EWT train eight times, 1,636,616 words, CoNLL-U to Parquet"),
    Work("image", "pictures.zip", 60_000, 0.8, "60,000 Fashion-MNIST PNG files in a zip, to Parquet"),
    Work("molecule", "molecules.jsonl", 4_000, None, "4,000 molecules, JSON lines to Parquet"),
)


class Timed(NamedTuple):
    """Describe a command's run: seconds, CPU seconds of all its processes, and their most memory together (pss), MB."""

    seconds: float
    cpu_seconds: float
    memory_mb: float
    output: str


def timed(command: Sequence[str]) -> Timed:
    """Run a command.

    Raises:
        CalledProcessError: If it fails.
    """
    started, before = perf_counter(), _children_seconds()
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603  our own
        peak = [0.0]
        watcher = threading.Thread(target=_watch, args=(process.pid, peak))
        watcher.start()
        output = process.stdout.read() if process.stdout is not None else ""
        process.wait()
        seconds = perf_counter() - started
        watcher.join()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Timed(seconds, _children_seconds() - before, peak[0], output)


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _watch(leader: int, peak: list[float]) -> None:
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(leader)
        while root.status() != psutil.STATUS_ZOMBIE:
            peak[0] = max(peak[0], machine.memory_mb(machine.tree(leader))["pss"])
            sleep(SAMPLE_SECONDS)


def job(model: str, source: Path, target: Path) -> Timed:
    """Return the command."""
    program = [sys.executable, "-m", "service.scoring", "run", model, str(source), str(target)]
    return timed([*program, "--quiet", "--overwrite", "--workers", str(len(machine.CORES))])


def measure(work: Work, folder: Path, rounds: int) -> dict[str, Any]:
    """Return all of one comparison."""
    source, one = folder / work.source, folder / f"one-{work.source}"
    if not source.exists():
        MAKERS[work.source](source, work.rows)
    MAKERS[work.source](one, 1)
    target = folder / "out.parquet"
    jobs, starts, limits = [], [], []
    for _ in tqdm(range(rounds), work.source):
        starts.append(job(work.model, one, target))
        jobs.append(job(work.model, source, target))
        limit = timed([sys.executable, "-m", "benchmarks.batch.limit", work.model, str(source), str(target)])
        limits.append({name: Seconds(*both) for name, both in json.loads(limit.output).items()})
    command = [sys.executable, "-m", "benchmarks.batch.plain", work.model, str(source), str(folder / "plain.parquet")]
    plain = timed(command)
    ours, start = median(one.seconds for one in jobs), median(one.seconds for one in starts)
    ours_cpu, start_cpu = median(one.cpu_seconds for one in jobs), median(one.cpu_seconds for one in starts)
    clocks, cpus = zip(*(_sums(one) for one in limits), strict=True)
    return {
        "what": work.what,
        "rows": work.rows,
        "job_seconds": ours,
        "job_seconds_all": [one.seconds for one in jobs],
        "start_seconds": start,
        "job_cpu_seconds": ours_cpu,
        "start_cpu_seconds": start_cpu,
        "memory_mb": max(one.memory_mb for one in jobs),
        "limit_seconds": median(clocks),
        "limit_seconds_all": clocks,
        "limit_cpu_seconds": median(cpus),
        "limit_steps": {name: median(one[name].clock for one in limits) for name in limits[0]},
        "plain_seconds": plain.seconds,
        "plain_cpu_seconds": plain.cpu_seconds,
        "plain_memory_mb": plain.memory_mb,
        "share": median(limit / one.seconds for one, limit in zip(jobs, clocks, strict=True)),
        "share_without_start": median(clocks) / max(1e-9, ours - start),
        "cpu_share": median(limit / one.cpu_seconds for one, limit in zip(jobs, cpus, strict=True)),
        "cpu_share_without_start": median(cpus) / max(1e-9, ours_cpu - start_cpu),
        "bar": work.bar,
    }


def _sums(steps: dict[str, Seconds]) -> tuple[float, float]:
    return sum(one.clock for one in steps.values()), sum(one.cpu for one in steps.values())


def page(results: dict[str, Any]) -> str:
    """Return the results for people."""
    lines = [
        "# Batch scoring", "",
        f"`{results['command']}` at `{results['commit']}` on {results['machine']['cpu']}, "
        f"{results['machine']['cores']} cores; load before: {results['machine']['load_before'][0]}.", "",
        "| job | seconds | start, s | rows/s | of the limit | without the start | computing | without the start | bar "
        "| memory, MB | script, s | script, MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for found in results["works"].values():
        bar = "" if found["bar"] is None else f"{found['bar']:.0%}"
        lines.append(
            f"| {found['what']} | {found['job_seconds']:.2f} | {found['start_seconds']:.2f} "
            f"| {found['rows'] / found['job_seconds']:,.0f} | {found['share']:.0%} "
            f"| {found['share_without_start']:.0%} | {found['cpu_share']:.0%} | {found['cpu_share_without_start']:.0%} "
            f"| {bar} | {found['memory_mb']:.0f} "
            f"| {found['plain_seconds']:.2f} | {found['plain_memory_mb']:.0f} |"
        )
    steps = [
        f"- {found['what']}: " + ", ".join(f"{name} {value:.2f} s" for name, value in found["limit_steps"].items())
        for found in results["works"].values()
    ]
    notes = [
        "", "The limit: for the table, parsing, the engine and writing one after the other, each on all cores and as",
        "fast as it goes; for the others, the engine alone on what was encoded, sorted and packed before. Without the",
        "start: the job less the seconds that a job of one row takes. Computing: the same of the CPU seconds of all",
        "processes.", "",
    ]  # fmt: skip
    return "\n".join([*lines, *notes, *steps, ""])


@click.command(help=__doc__)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--only", multiple=True, type=click.Choice([work.source for work in WORKS]))
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), help="Where inputs lie; kept if given.")
@click.option("--write/--no-write", default=True, help="Whether to write the results into the repository.")
def main(rounds: int, only: tuple[str, ...], folder: Path | None, write: bool) -> None:
    """The command line."""
    with tempfile.TemporaryDirectory() as temporary:
        work_folder = folder or Path(temporary)
        work_folder.mkdir(parents=True, exist_ok=True)
        results: dict[str, Any] = {"machine": machine.describe(), "commit": machine.commit()}
        results["command"] = f"python -m benchmarks.batch --rounds {rounds}"
        works = [work for work in WORKS if not only or work.source in only]
        results["works"] = {work.source: measure(work, work_folder, rounds) for work in works}
    click.echo(page(results))
    if write:
        (RESULTS / "scoring.json").write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
        (RESULTS / "scoring.md").write_text(page(results))


if __name__ == "__main__":
    main()
