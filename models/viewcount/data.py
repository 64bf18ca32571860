"""Daily views to learn from: the OTexts series, or a user's CSV with the columns ``date,views``. Torch-free."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.datasets import Dataset, Metric, Provenance, RemoteFile, own_provenance, provenance, read
from models.errors import DataError
from models.family import Prediction
from models.viewcount.schema import MAX_HORIZON_DAYS, MAX_VIEWS_PER_DAY, WINDOW_DAYS, Assets, Instance

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
ERROR = Metric(name="mean absolute error", unit="views per day", is_better_high=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewData:
    """A daily series cut by time.

    Attributes:
        views: ``(D,)`` float32, one value per consecutive day.
        first_day: Date of ``views[0]``.
        bounds: First validation day, first test day, first day after the test, as indices.
    """

    provenance: Provenance
    views: NDArray[np.float32]
    first_day: date
    bounds: tuple[int, int, int]

    @property
    def assets(self) -> Assets:
        """The family's usual window and horizon."""
        return Assets()

    @property
    def metric(self) -> Metric:
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


def load(path: Path | None = None, seed: int = 0) -> ViewData:
    """Read OTexts, or a user's CSV. A user's last fifth tests, the fifth before validates.

    Raises:
        DataError: With file, row, what was found and what was expected.
    """
    if path is None:
        text = read(OTEXTS, "otexts_views.csv").decode()
        days = _parse("otexts_views.csv", text, date_column="Date", views_column="Pageviews")
        first = min(days)
        bounds = tuple((bound - first).days for bound in OTEXTS_BOUNDS)
        return ViewData(
            provenance=provenance(OTEXTS),
            views=_consecutive("otexts_views.csv", days),
            first_day=first,
            bounds=(bounds[0], bounds[1], bounds[2]),
        )
    return _load_own(path)


def _load_own(path: Path) -> ViewData:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(path, found=type(error).__name__, expected="a readable UTF-8 CSV file") from error
    days = _parse(path, text, date_column="date", views_column="views")
    views = _consecutive(path, days)
    if len(views) < MIN_DAYS:
        raise DataError(path, found=f"{len(views)} days", expected=f"at least {MIN_DAYS}")
    targets = len(views) - WINDOW_DAYS
    test = len(views) - targets // 5
    return ViewData(
        provenance=own_provenance(path),
        views=views,
        first_day=min(days),
        bounds=(test - targets // 5, test, len(views)),
    )


def _parse(file: Path | str, text: str, *, date_column: str, views_column: str) -> dict[date, float]:
    """Views by day.

    Raises:
        DataError: At the first bad row; row 1 is the header.
    """
    rows = csv.DictReader(io.StringIO(text))
    header = rows.fieldnames or []
    if date_column not in header or views_column not in header:
        raise DataError(file, row=1, found=f"columns {', '.join(header)}", expected=f"{date_column},{views_column}")
    days: dict[date, float] = {}
    try:
        for number, row in enumerate(rows, start=2):
            day = _parse_day(file, number, row[date_column])
            if day in days:
                raise DataError(file, row=number, found=f"{day} a second time", expected="one row per day")
            days[day] = _parse_views(file, number, row[views_column])
    except csv.Error as error:
        raise DataError(file, row=rows.line_num, found=str(error), expected="a CSV row") from error
    if not days:
        raise DataError(file, found="no rows", expected=f"at least {MIN_DAYS} days")
    return days


def _parse_day(file: Path | str, number: int, text: str | None) -> date:
    try:
        return date.fromisoformat((text or "").strip())
    except ValueError as error:
        raise DataError(file, row=number, found=f"date {text!r}", expected="YYYY-MM-DD") from error


def _parse_views(file: Path | str, number: int, text: str | None) -> float:
    expected = f"a whole number from 0 to {MAX_VIEWS_PER_DAY}"
    try:
        views = int((text or "").strip())
    except ValueError as error:
        raise DataError(file, row=number, found=f"views {text!r}", expected=expected) from error
    if not 0 <= views <= MAX_VIEWS_PER_DAY:
        raise DataError(file, row=number, found=f"views {views}", expected=expected)
    return float(views)


def _consecutive(file: Path | str, days: dict[date, float]) -> NDArray[np.float32]:
    """Views in order of time.

    Raises:
        DataError: At the first missing day.
    """
    first = min(days)
    for offset in range(len(days)):
        day = first + timedelta(days=offset)
        if day not in days:
            raise DataError(file, found=f"no row for {day}", expected="every day between the first and the last")
    return np.asarray([days[day] for day in sorted(days)], np.float32)
