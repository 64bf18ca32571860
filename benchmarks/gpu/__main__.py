"""Everything that is promised of a GPU, on a machine with one: ``python -m benchmarks.gpu``.

Needs torch for the same CUDA, this checkout and no network; the test sets are looked for as training looks for them.
Checks every shipped model on the device, times it against torch, serves it, and writes ``benchmarks/results/gpu.json``
and ``gpu.md``. ``--device cpu`` runs the same code small on any machine and writes only where ``--out`` says: its
figures are of no interest, and nothing in it is a GPU's.
"""

from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import msgspec

from benchmarks.gpu.rows import GpuRow, Scope, no_gpu, proofs, served, speed, unwritten
from benchmarks.harness import machine
from models.paths import REPOSITORY
from models.runtime.device import has_cuda

RESULTS = REPOSITORY / "benchmarks/results"
NO_GPU = "no NVIDIA device on this machine: nothing was run; --device cpu --out FOLDER tries the same code small"


class GpuReport(msgspec.Struct, frozen=True, kw_only=True):
    """Describe what a run found."""

    device: str
    date: str
    commit: str
    machine: dict[str, Any]
    rows: list[GpuRow]


def run(scope: Scope) -> list[GpuRow]:
    """Return all rows of the table, in its order."""
    with TemporaryDirectory() as folder:
        rows = [*proofs(scope), *speed(scope), *unwritten()]
        return [*rows, *served(scope, Path(folder)), *no_gpu(scope, Path(folder))]


def page(report: GpuReport) -> str:
    """Return the table as Markdown."""
    lines = [
        "# On the GPU",
        "",
        f"`python -m benchmarks.gpu --device {report.device}`, {report.date}, commit {report.commit}, {report.machine}",
        "",
        "| what | bar | found | |",
        "|---|---|---|---|",
    ]
    lines += [f"| {row.what} | {row.bar} | {row.found} | {row.verdict} |" for row in report.rows]
    for row in report.rows:
        if row.details:
            lines += ["", f"## {row.what}", "", *(f"- {detail}" for detail in row.details)]
    return "\n".join(lines) + "\n"


@click.command(help=__doc__)
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Instead of benchmarks/results.")
@click.option("--models", default="", help="Comma-separated names; empty: every shipped one.")
@click.option("--seconds", default=10.0, show_default=True, help="Of each load test.")
@click.option("--without-test-set", is_flag=True, help="Where the data are not at hand.")
@click.option("--without-server", is_flag=True, help="Leave out what needs a running service.")
def main(
    device: str, out: Path | None, models: str, seconds: float, without_test_set: bool, without_server: bool
) -> None:
    """The command line."""
    if device == "cuda" and not has_cuda():
        raise click.ClickException(NO_GPU)
    if device == "cpu" and out is None:
        raise click.UsageError("--device cpu needs --out: its figures do not belong among the results")
    scope = Scope(
        device=device,
        models=tuple(name for name in models.split(",") if name),
        seconds=seconds,
        has_test_set=not without_test_set,
        has_server=not without_server,
    )
    rows = run(scope)
    report = GpuReport(
        device=device, date=date.today().isoformat(), commit=machine.commit(), machine=machine.describe(), rows=rows
    )
    folder = out or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    (folder / "gpu.md").write_text(page(report))
    for row in rows:
        click.echo(f"{row.verdict:<8} {row.what}: {row.found}")
    if any(row.is_met is False for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
