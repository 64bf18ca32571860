"""The pictures of the graph family's ladder, from results alone. matplotlib, no display."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import Patch

from models.training.experiment import ExperimentOutcome, Results

REFERENCE, RUNG = "0.65", "tab:blue"


def _section(results: Results, section: str) -> list[ExperimentOutcome]:
    """Outcomes of a section in the table's order, the first one last: axes count upwards."""
    return [outcome for outcome in results.values() if outcome.section == section][::-1]


def citations(path: Path, results: Results) -> None:
    """Test accuracy of everything on Cora (left) and Citeseer (right), with the standard deviation over seeds."""
    figure, both = plt.subplots(1, 2, figsize=(11, 3.9), layout="constrained", sharey=True)
    for axes, section in zip(both, ("Cora", "Citeseer"), strict=True):
        outcomes = _section(results, section)
        for height, outcome in enumerate(outcomes):
            if not outcome.trials:
                continue  # not trained yet
            mean, spread = outcome.mean("test"), outcome.spread("test")
            color = RUNG if outcome.settings else REFERENCE
            axes.errorbar(mean, height, xerr=spread or None, fmt="o", color=color, capsize=3, markersize=6)
            text = f"{mean:.1f} ± {spread:.1f}" if spread else f"{mean:.1f}"
            axes.text(92, height, text, va="center", fontsize=9)
        axes.set_yticks(range(len(outcomes)), [outcome.label for outcome in outcomes])
        axes.set(xlim=(10, 106), xticks=range(20, 91, 10), xlabel="test accuracy, %", title=section)
        _tidy(axes)
    kinds = {"trained, mean ± standard deviation over seeds": RUNG, "reference": REFERENCE}
    handles = [Patch(color=color, label=label) for label, color in kinds.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def folds(path: Path, results: Results) -> None:
    """Test accuracy of every fold of every seed on MUTAG as a dot, and the mean of all as a line."""
    figure, axes = plt.subplots(figsize=(8, 3.9), layout="constrained")
    outcomes = _section(results, "MUTAG")
    rng = np.random.default_rng(0)
    for height, outcome in enumerate(outcomes):
        if not outcome.trials:
            continue
        mean, color = outcome.mean("test"), RUNG if outcome.settings else REFERENCE
        if outcome.settings:
            scores = np.asarray(outcome.scores("test"))
            across, along = rng.uniform(-0.28, 0.28, (2, len(scores)))
            # Accuracies are multiples of a nineteenth: without the little shift, dots hide each other.
            axes.scatter(scores + 1.2 * across, height + along, s=12, color=color, alpha=0.5, linewidth=0)
        axes.plot([mean, mean], [height - 0.38, height + 0.38], color="black", linewidth=2)
        axes.text(101.5, height, f"{mean:.1f}", va="center", fontsize=9)
    axes.set_yticks(range(len(outcomes)), [outcome.label for outcome in outcomes])
    axes.set(
        xlim=(45, 106), xticks=range(50, 101, 10), xlabel="accuracy on the fold not seen, %", title="MUTAG, ten folds"
    )
    _tidy(axes)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _tidy(axes: Any) -> None:
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
