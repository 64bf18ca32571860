"""Daily views to learn from: the OTexts series, or a user's own table of days and views. Torch-free."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.card import Prediction
from models.errors import DataError
from models.reading import TestPart, beside
from models.training.datasets import Dataset, Provenance, RemoteFile, ScoreMetric, own_provenance, provenance, read
from models.viewcount.exports import MAX_BYTES
from models.viewcount.schema import MAX_HORIZON_DAYS, WINDOW_DAYS, Assets, Instance
from models.viewcount.table import Series, SeriesOptions, read_series

OTEXTS = Dataset(
    name="OTexts daily page views",
    folder="viewcount/otexts_views",
    licence="GPL-3.0-only (R package fpp3; no separate data licence is stated)",
    attribution="Hyndman, Athanasopoulos and O'Hara-Wild, R package fpp3; collected in Rdatasets",
    files={
        "otexts_views.csv": RemoteFile(
            sha256="d791a068687d6cc1fc6e1d7464e69c3f6c6f9dba89454f8ee29a8b072dfa82a2",
            url="https://vincentarelbundock.github.io/Rdatasets/csv/fpp3/otexts_views.csv",
        )
    },
)
# The lecture's cut: learn from 2018-2020, test on 2021. The last half year before the test validates.
OTEXTS_BOUNDS = (date(2020, 7, 1), date(2021, 1, 1), date(2022, 1, 1))
MIN_DAYS = 2 * WINDOW_DAYS + 3 * MAX_HORIZON_DAYS
ERROR = ScoreMetric(name="mean absolute error", unit="views per day", is_better_high=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewData:
    """A daily series cut by time.

    Attributes:
        views: ``(D,)`` float32, one value per consecutive day.
        first_day: Date of ``views[0]``.
        bounds: First validation day, first test day, first day after the test, as indices.
        is_own: Whether it is a user's.
    """

    provenance: Provenance
    views: NDArray[np.float32]
    first_day: date
    bounds: tuple[int, int, int]
    is_own: bool = False

    @property
    def assets(self) -> Assets:
        """Return the family's usual window and horizon; of a user's own series also its level, before the test."""
        if not self.is_own:
            return Assets()
        return Assets(level=float(f"{self.views[: self.bounds[1]].mean():.2g}"))

    @property
    def metric(self) -> ScoreMetric:
        """Of the forecast one day ahead."""
        return ERROR

    def target_days(self, split: str) -> range:
        """Indices of the days to forecast one ahead; each has a whole window before it."""
        validation, test, end = self.bounds
        return {
            "train": range(WINDOW_DAYS, validation),
            "validation": range(validation, test),
            "test": range(test, end),
        }[split]

    def windows(self, split: str, last: str | None = None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Past ``(N, 56)`` and future ``(N, 28)`` views of one split, or of all from ``split`` to ``last``.

        Days after the last split are NaN, so that no split sees the next.
        """
        days = range(self.target_days(split).start, self.target_days(last or split).stop)
        future = np.full((len(days), MAX_HORIZON_DAYS), np.nan, np.float32)
        for row, day in enumerate(days):
            seen = self.views[day : min(day + MAX_HORIZON_DAYS, days.stop)]
            future[row, : len(seen)] = seen
        past = np.stack([self.views[day - WINDOW_DAYS : day] for day in days])
        return past, future

    def examples(self, split: str) -> Iterator[tuple[Instance, NDArray[np.float32]]]:
        """Requests for one day ahead; the truth is that day's views."""
        past, future = self.windows(split)
        for views, truth in zip(past, future[:, :1], strict=True):
            yield Instance(views=views.tolist(), horizon=1), truth

    def judge(self, predictions: Sequence[Prediction], truths: Sequence[NDArray[np.float32]]) -> float:
        """Mean absolute error in views per day."""
        errors = [p["forecast"][0] - truth[0] for p, truth in zip(predictions, truths, strict=True)]
        return float(np.mean(np.abs(errors)))


class LearningOptions(SeriesOptions, frozen=True, kw_only=True, omit_defaults=True):
    """Describe what the command line may say of a table to learn from."""

    test: TestPart = ""


def load(path: Path | None = None, options: LearningOptions | None = None) -> ViewData:
    """Read OTexts, or a user's own table. A user's last fifth tests, the fifth before validates.

    A table ``options.test``, by its place beside ``path``, goes on where the user's ends: its days test instead, and
    the last fifth of ``path`` validates.

    Raises:
        DataError: With file, row, what was found and what was expected.
    """
    if path is None:
        series = read_series(read(OTEXTS, "otexts_views.csv"), "otexts_views.csv", SeriesOptions())
        bounds = tuple((bound - series.first_day).days for bound in OTEXTS_BOUNDS)
        return ViewData(
            provenance=provenance(OTEXTS),
            views=series.views,
            first_day=series.first_day,
            bounds=(bounds[0], bounds[1], bounds[2]),
        )
    options = options or LearningOptions()
    given = beside(path, options.test)
    return _own(path, _read(path, options), given, _read(given, options) if given else None)


def _read(path: Path, options: LearningOptions) -> Series:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(path, found=type(error).__name__, expected="a readable file") from error
    return read_series(content, str(path), options)


def _own(path: Path, series: Series, given: Path | None, tested: Series | None) -> ViewData:
    count = len(series.views)
    if count < MIN_DAYS:
        raise DataError(path, found=f"{count} days", expected=f"at least {MIN_DAYS}")
    origin, share = own_provenance(path, test=[given] if given else []), (count - WINDOW_DAYS) // 5
    test, views, notes = count - share, series.views, series.notes
    if given is not None and tested is not None:
        after = series.first_day + timedelta(days=count)
        if tested.first_day != after:
            expected = f"{after}, the day after the last of --data, {path.name}"
            raise DataError(given, found=f"{tested.first_day} as the first day", expected=expected)
        test, views = count, np.concatenate([series.views, tested.views])
        notes += (f"the {len(tested.views)} days from {after} on test, from {given.name}", *tested.notes)
    return ViewData(
        provenance=replace(origin, notes=notes),
        views=views,
        first_day=series.first_day,
        bounds=(test - share, test, len(views)),
        is_own=True,
    )
