"""The pictures training leaves behind. matplotlib, no display."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from numpy.typing import NDArray


def confusion(path: Path, truth: NDArray[Any], found: NDArray[Any], classes: Sequence[str]) -> None:
    """A confusion matrix: rows are true classes, columns predicted ones, both ``(N,)`` class ids; counts in cells."""
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (truth, found), 1)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 2.5 + 0.45 * len(classes)
    figure, axes = plt.subplots(figsize=(side, side), layout="constrained")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            shade = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=shade, fontsize=7)
    axes.set_xticks(range(len(classes)), classes, rotation=60, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted", ylabel="true", title=f"{100 * np.trace(counts) / counts.sum():.2f} % right")
    _save(figure, path)


def curves(path: Path, history: Sequence[dict[str, float]], metric: str) -> None:
    """Training loss (left axis) and validation metric (right axis) per epoch."""
    epochs = range(1, len(history) + 1)
    figure, left = plt.subplots(figsize=(7, 4), layout="constrained")
    left.plot(epochs, [h["loss"] for h in history], color="tab:gray")
    left.set(xlabel="epoch", ylabel="training loss")
    right = left.twinx()
    right.plot(epochs, [h["validation"] for h in history], color="tab:blue")
    right.set_ylabel(f"validation {metric}", color="tab:blue")
    _save(figure, path)


def forecast(
    path: Path,
    days: NDArray[np.datetime64],
    real: NDArray[np.float64],
    estimated: NDArray[np.float64],
    bounds: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> None:
    """Real views in red and estimated in blue over time, all ``(N,)`` views per day, with the interval shaded."""
    figure, axes = plt.subplots(figsize=(12, 4.5), layout="constrained")
    axes.fill_between(days, *bounds, color="tab:blue", alpha=0.15, linewidth=0, label="90 % interval")
    axes.plot(days, real, color="tab:red", linewidth=1, label="real")
    axes.plot(days, estimated, color="tab:blue", linewidth=1, label="estimated one day ahead")
    axes.set(
        ylabel="views per day",
        title=f"mean absolute error {np.abs(real - estimated).mean():,.0f} views per day",
    )
    axes.legend(loc="upper left")
    _save(figure, path)


def lines(path: Path, values: Mapping[str, Mapping[int, float]], *, x: str, y: str, is_log: bool = False) -> None:
    """One line per name through its points ``{x: y}``, each point with its value; the x axis logarithmic if wanted."""
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for name, points in values.items():
        (line,) = axes.plot(list(points), list(points.values()), marker="o", label=name)
        for point_xy, value in points.items():
            axes.annotate(f"{value:.1f}", (point_xy, value), (0, 6), textcoords="offset points", color=line.get_color())
    if is_log:
        axes.set_xscale("log")
    ticks = sorted({point_xy for points in values.values() for point_xy in points})
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel=x, ylabel=y)
    axes.margins(0.08)
    axes.legend()
    _save(figure, path)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlotPoint:
    """A point of ``dots``: dots of one group have one colour, and the area says the size."""

    label: str
    group: str
    x: float
    y: float
    size: float


def dots(path: Path, points: Sequence[PlotPoint], *, x: str, y: str, size: str) -> None:
    """Dots whose area is a third quantity; their labels stand in a column, each with a line to its dot."""
    figure, axes = plt.subplots(figsize=(12, 7.5), layout="constrained")
    scale = 400 / max((point.size for point in points), default=1.0)
    groups = list(dict.fromkeys(point.group for point in points))
    colors = {group: plt.get_cmap("tab10")(number % 10) for number, group in enumerate(groups)}
    for point in points:
        axes.scatter(point.x, point.y, scale * point.size, color=colors[point.group], alpha=0.6)
    axes.set(xlabel=x, ylabel=y)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(alpha=0.3)
    axes.margins(0.08)
    low, high = axes.get_ylim()
    ordered = sorted(points, key=lambda point: (point.y, point.x))
    for point, height in zip(ordered, _apart([(p.y - low) / (high - low) for p in ordered], gap=0.042), strict=True):
        axes.annotate(
            f"{point.group}: {point.label}",
            (point.x, point.y),
            (1.03, height),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            color=colors[point.group],
            arrowprops={
                "arrowstyle": "-",
                "relpos": (0, 0.5),
                "color": colors[point.group],
                "alpha": 0.35,
                "linewidth": 0.8,
            },
        )
    handles = []
    for amount in np.quantile([point.size for point in points], (0, 0.5, 1)) if points else ():
        label = f"{amount:,.0f} {size}"
        handles.append(axes.scatter([], [], scale * amount, color="none", edgecolor="black", label=label))
    axes.legend(handles=handles, loc="lower left", frameon=False, labelspacing=1.2)
    _save(figure, path)


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """Rising heights moved as little as it takes to be ``gap`` apart and at most 1."""
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + gap) if moved else height)
    for point_xy in range(len(moved) - 1, -1, -1):
        ceiling = moved[point_xy + 1] - gap if point_xy + 1 < len(moved) else 1.0
        moved[point_xy] = min(moved[point_xy], ceiling)
    return moved


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=110)
    plt.close(figure)
