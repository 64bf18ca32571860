"""The pictures of the view-count ladder, drawn from its results alone. matplotlib, no display."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt

from models.training.experiment import ExperimentOutcome, Results
from models.viewcount.train.data import OTEXTS_BOUNDS

DEPTHS = (1, 2, 3, 4)
THOUSAND = 1000


def draw_depth(path: Path, results: Results, *, standardised: str, relative: str) -> None:
    """The lecture's picture twice: error by number of layers on train and test; names hold a ``{}`` for the depth."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained", sharey=True)
    titles = ("standardised views, ReLU", "log ratio to the level, tanh, companion series")
    for axes, pattern, title in zip(panels, (standardised, relative), titles, strict=True):
        outcomes = [results[pattern.format(depth)] for depth in DEPTHS]
        for split, label, color in (("train", "days learned from", "tab:gray"), ("test", "2021, unseen", "tab:blue")):
            errors = [outcome.mean(split) / THOUSAND for outcome in outcomes]
            spread = [(outcome.spread(split) or 0.0) / THOUSAND for outcome in outcomes]
            axes.errorbar(DEPTHS, errors, spread, marker="o", capsize=3, color=color, label=label)
            for depth, error in zip(DEPTHS, errors, strict=True):
                axes.annotate(f"{error:.2f}", (depth, error), (8, 6), textcoords="offset points", color=color)
        axes.set(title=title, xlabel="hidden layers of 100 units", xlim=(0.7, 4.5))
        axes.set_xticks(DEPTHS)
        axes.grid(axis="y", alpha=0.3)
    panels[0].set(ylabel="mean absolute error one day ahead\n(thousand views per day)")
    panels[0].set_ylim(0, 1.1 * panels[0].get_ylim()[1])  # room for the highest value's label
    panels[0].legend(loc="lower left")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_forecast(path: Path, results: Results) -> None:
    """Real views in red and estimated in blue over 2021, of the rung that was best on validation."""
    best = min((each for each in results.values() if has_forecast(each)), key=lambda each: each.mean("validation"))
    year = best.trials[0].more["forecast"]
    real, estimated = (np.asarray(year[name], np.float64) / THOUSAND for name in ("real", "estimated"))
    days = np.datetime64(OTEXTS_BOUNDS[1]) + np.arange(len(real))
    figure, axes = plt.subplots(figsize=(12, 4.5), layout="constrained")
    axes.plot(days, real, color="tab:red", linewidth=1.2, label="real")
    axes.plot(days, estimated, color="tab:blue", linewidth=1.2, label="estimated one day ahead")
    error = np.abs(real - estimated).mean()
    axes.set(
        ylabel="thousand views per day",
        title=f"{best.label}: mean absolute error {THOUSAND * error:,.0f} views per day over {len(real)} days",
        xlim=(days[0], days[-1]),
    )
    axes.set_ylim(bottom=0)
    months = np.arange(days[0], days[-1] + 1, dtype="datetime64[M]")
    axes.set_xticks(months.astype(days.dtype), [f"{month:%b %Y}" for month in months.tolist()])
    axes.tick_params(axis="x", rotation=30)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def has_forecast(outcome: ExperimentOutcome) -> bool:
    """Return whether its first trial kept what the picture needs."""
    return bool(outcome.trials) and "forecast" in outcome.trials[0].more
