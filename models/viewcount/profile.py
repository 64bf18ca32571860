"""Measure view counts and forecasts for drift. numpy only."""

from collections.abc import Sequence

import numpy as np

from models.card import Array, DriftFeature, DriftFeatures, Prediction
from models.viewcount.codec import Sample
from models.viewcount.schema import Assets

WEEK = 7


def of_samples(samples: Sequence[Sample], assets: Assets) -> dict[str, Array]:
    """Level, trend and weekly swing of the days looked back."""
    views = _views(samples)  # (B, days)
    half = views.shape[1] // 2
    earlier, later = views[:, :half].mean(axis=1) + 1, views[:, half:].mean(axis=1) + 1
    whole_weeks = views[:, views.shape[1] % WEEK :].reshape(len(views), -1, WEEK)
    weekdays = whole_weeks.mean(axis=1)  # (B, 7)
    return {
        "level": np.log10(views.mean(axis=1) + 1),
        "trend": np.log2(later / earlier),
        "weekly_swing": np.ptp(weekdays, axis=1) / (weekdays.mean(axis=1) + 1),
    }


def of_answers(samples: Sequence[Sample], predictions: Sequence[Prediction], assets: Assets) -> dict[str, Array]:
    """The first forecast day against the same weekday before, and the width of its interval; whatever the horizon."""
    views = _views(samples)
    first = np.array([[answer[name][0] for name in ("forecast", "lower", "upper")] for answer in predictions])
    same_weekday = views[:, -WEEK::-WEEK].mean(axis=1)
    return {
        "surprise": np.log2((np.maximum(first[:, 0], 0) + 1) / (same_weekday + 1)),
        "interval": (first[:, 2] - first[:, 1]) / (views.mean(axis=1) + 1),
    }


def _views(samples: Sequence[Sample]) -> Array:
    return np.concatenate([sample.views for sample in samples]).reshape(len(samples), -1)


TRAITS = DriftFeatures(
    features=(
        DriftFeature(name="level", unit="decimal logarithm of the mean views per day"),
        DriftFeature(name="trend", unit="doublings from the first half of the window to the second"),
        DriftFeature(name="weekly_swing", unit="best weekday less worst, parts of the mean"),
        DriftFeature(name="surprise", unit="doublings from the same weekday to the forecast", is_learned=True),
        DriftFeature(name="interval", unit="width of the first day's interval, parts of the level", is_learned=True),
    ),
    of_samples=of_samples,
    of_answers=of_answers,
)
