"""The picture of a run: every peer's rate beside the limits."""

from pathlib import Path

import matplotlib

from benchmarks.harness.peers import ON_BOTH_CORES
from benchmarks.harness.results import Heading, Results

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

OURS, THEIRS, BOUND = "#b5482a", "#8a94a3", "#222222"


def draw(results: Results, path: Path) -> None:
    """Write one panel per workload: rates at its highest load of 64 connections or fewer, fastest on top."""
    headings = [heading for heading in results.workloads if len(_bars(results, heading)) > 1]
    if not headings:
        return
    rows = -(-len(headings) // 2)
    figure, panels = pyplot.subplots(rows, 2, figsize=(12, 3.4 * rows), squeeze=False)
    for panel in panels.flat[len(headings) :]:
        panel.set_visible(False)
    for panel, heading in zip(panels.flat, headings, strict=False):
        _draw(panel, results, heading)
    machine = results.machine
    figure.suptitle(f"One core for the server: {machine['cpu']}, {results.commit[:10]}", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _load(heading: Heading) -> int:
    return max(count for count in heading.connections if count <= 64)


def _bars(results: Results, heading: Heading) -> list[tuple[str, float, float, float]]:
    """Title, median, lowest and highest rate, slowest first."""
    found = []
    for row in results.rows:
        cell = results.cell(row.key, heading.key, _load(heading))
        if cell is not None and row.key not in ON_BOTH_CORES:
            found.append((row.title.strip("*"), cell.middle("rate"), *cell.spread))
    return sorted(found, key=lambda bar: bar[1])


def _draw(panel: Axes, results: Results, heading: Heading) -> None:
    bars = _bars(results, heading)
    titles, rates = [bar[0] for bar in bars], [bar[1] for bar in bars]
    colours = [OURS if title.startswith("Lectern") else THEIRS for title in titles]
    errors = [[rate - low for _, rate, low, _ in bars], [high - rate for _, rate, _, high in bars]]
    panel.barh(titles, rates, color=colours, xerr=errors, error_kw={"lw": 0.8})
    for at, (_, rate, _, high) in enumerate(bars):
        panel.annotate(f" {rate:,.0f}", (high, at), va="center", fontsize=8, xytext=(2, 0), textcoords="offset points")
    codec, _ = results.bound(heading.key).best("codec")
    if codec:
        panel.axvline(codec, color=BOUND, lw=1, ls="--", label="codec + model in process")
        panel.legend(fontsize=7, loc="lower right")
    panel.set_title(f"{heading.title}, {_load(heading)} connections", fontsize=9)
    panel.set_xlabel("answers per second", fontsize=8)
    panel.tick_params(labelsize=8)
    panel.margins(x=0.15)
    panel.spines[["top", "right"]].set_visible(False)
