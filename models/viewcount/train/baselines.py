"""Compute view-count baselines: yesterday, a week ago, exponential smoothing."""

from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from models.training.experiment import SPLITS
from models.viewcount.schema import WINDOW_DAYS
from models.viewcount.train.data import ViewData, load

Views = NDArray[np.float64]


def days_ago(days: int, data: ViewData | None = None) -> dict[str, float]:
    """Mean absolute error by split of "as so many days ago"."""
    data = data or load()
    views = data.views.astype(np.float64)
    guess = np.concatenate([np.full(days, np.nan), views[:-days]])
    return {split: _error(data, guess, split) for split in SPLITS}


def holt_winters(data: ViewData | None = None, *, is_log: bool = False) -> dict[str, float]:
    """Mean absolute error by split of additive exponential smoothing with trend and weekly season, one day ahead.

    Holt 1957, Winters 1960. For the test everything is fitted to the days before it; for validation, and for the
    training days themselves, to the training days. The smoothing goes on with the parameters fixed.
    """
    data = data or load()
    validation, test, end = data.bounds
    views = data.views.astype(np.float64)[:end]
    scale, back = (np.log, np.exp) if is_log else (np.asarray, np.asarray)
    series: Views = scale(np.maximum(views, 1.0))
    early, late = (back(smooth(series, fitted)) for fitted in (validation, test))
    return {split: _error(data, late if split == "test" else early, split) for split in SPLITS}


def smooth(series: Views, fitted: int) -> Views:
    """Return one-step forecasts of all days ``(D,)``, with parameters found on the first ``fitted`` days."""
    smoothing = import_module("statsmodels.tsa.holtwinters").ExponentialSmoothing
    shape = {"trend": "add", "seasonal": "add", "seasonal_periods": 7}
    found = smoothing(series[:fitted], **shape, initialization_method="estimated").fit().params
    start = {
        "initial_level": found["initial_level"],
        "initial_trend": found["initial_trend"],
        "initial_seasonal": found["initial_seasons"],
    }
    speeds = {name: found[name] for name in ("smoothing_level", "smoothing_trend", "smoothing_seasonal")}
    model = smoothing(series, **shape, initialization_method="known", **start)
    forecasts: Views = np.asarray(model.fit(**speeds, optimized=False).fittedvalues)
    return forecasts


def _error(data: ViewData, guess: Views, split: str) -> float:
    days = np.asarray(data.target_days(split))
    assert days[0] >= WINDOW_DAYS
    return float(np.abs(guess[days] - data.views[days]).mean())
