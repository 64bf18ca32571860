"""Measure a batch job's memory over the size of its input: ``python -m benchmarks.batch.memory``.

A table of a million view counts, 316 MB, is repeated until it has so many gigabytes, and scored by the real command.
What counts is the most memory of all of the job's processes together (pss); the largest input may take no more than a
tenth more than the smallest, or the exit status is 1. Ten gigabytes take minutes, and twice their size on the disk.
"""

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
from tqdm import tqdm

from benchmarks.batch.__main__ import RESULTS, job
from benchmarks.batch.inputs import views
from benchmarks.harness import machine

ROWS = 1_000_000
GIGABYTE = 10**9
MORE = 1.1


def repeat(table: Path, path: Path, size: int) -> int:
    """Return a CSV of at least so many bytes: a table's header, and its rows again and again; how often."""
    times = 0
    with path.open("wb") as target:
        while target.tell() < size:
            with table.open("rb") as source:
                header = source.readline()
                if not times:
                    target.write(header)
                shutil.copyfileobj(source, target, 2**20)
            times += 1
    return times


def measure(folder: Path, gigabytes: float, rows: int) -> dict[str, Any]:
    """Return one job."""
    table, source, target = folder / "table.csv", folder / "in.csv", folder / "out.parquet"
    if not table.exists():
        views(table, rows)
    times = repeat(table, source, int(gigabytes * GIGABYTE))
    timed = job("viewcount", source, target)
    found = {
        "input_bytes": source.stat().st_size,
        "rows": times * rows,
        "seconds": round(timed.seconds, 1),
        "memory_mb": round(timed.memory_mb),
        "output_bytes": target.stat().st_size,
    }
    source.unlink()
    target.unlink()
    return found


def page(results: dict[str, Any]) -> str:
    """Return the results for people."""
    lines = [
        "# Batch scoring: memory over the size of the input", "",
        f"`{results['command']}` at `{results['commit']}` on {results['machine']['cpu']}, "
        f"{results['machine']['cores']} cores. Most memory of all processes of the job together (pss).", "",
        "| input, GB | rows | seconds | rows/s | memory, MB |", "|---|---|---|---|---|",
    ]  # fmt: skip
    lines += [
        f"| {one['input_bytes'] / GIGABYTE:.1f} | {one['rows']:,} | {one['seconds']:.0f} "
        f"| {one['rows'] / one['seconds']:,.0f} | {one['memory_mb']} |"
        for one in results["jobs"]
    ]
    return "\n".join([*lines, ""])


def is_flat(jobs: Sequence[dict[str, Any]]) -> bool:
    """Return whether the last job took hardly more memory than the first."""
    return bool(jobs[-1]["memory_mb"] <= MORE * jobs[0]["memory_mb"])


@click.command(help=__doc__)
@click.option("--gigabytes", multiple=True, type=float, default=(1, 10), show_default=True, help="Smallest first.")
@click.option("--rows", default=ROWS, show_default=True, help="Of the table that is repeated.")
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), help="On a disk with room; a new one else.")
@click.option("--write/--no-write", default=True, help="Whether to write the results into the repository.")
def main(gigabytes: tuple[float, ...], rows: int, folder: Path | None, write: bool) -> None:
    """The command line."""
    with tempfile.TemporaryDirectory(dir=folder) as work_folder:
        results: dict[str, Any] = {"machine": machine.describe(), "commit": machine.commit()}
        sizes = " ".join(f"--gigabytes {one:g}" for one in gigabytes)
        results["command"] = f"python -m benchmarks.batch.memory {sizes}"
        results["jobs"] = [measure(Path(work_folder), size, rows) for size in tqdm(gigabytes, leave=False)]
    click.echo(page(results))
    if write:
        content = msgspec.json.format(msgspec.json.encode(results), indent=2)
        (RESULTS / "scoring_sizes.json").write_bytes(content + b"\n")
        (RESULTS / "scoring_sizes.md").write_text(page(results))
    if not is_flat(results["jobs"]):
        sys.exit("lectern: memory grows with the input")


if __name__ == "__main__":
    main()
