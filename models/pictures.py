"""The pictures training leaves behind. matplotlib, no display."""

from collections.abc import Sequence
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


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=110)
    plt.close(figure)
