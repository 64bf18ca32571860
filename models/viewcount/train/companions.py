"""Other public series of daily views, to learn from beside one's own. Torch-free."""

import csv
import io
import math
from datetime import date

import numpy as np
from numpy.typing import NDArray

from models.training.datasets import Dataset, Provenance, RemoteFile, provenance, read
from models.viewcount.schema import MAX_HORIZON_DAYS, WINDOW_DAYS

WIKIPEDIA = Dataset(
    name="Wikipedia daily page views (R, Peyton Manning)",
    folder="viewcount/wikipedia_prophet",
    licence="MIT (prophet); the page views are public",
    attribution="Wikimedia page views, collected in prophet (Taylor and Letham)",
    files={
        "example_wp_log_R.csv": RemoteFile(
            sha256="6be7cee8ce25f97e7bdf30444847e8fd36335c25611195b0bdc20f57ab06944e",
            url="https://raw.githubusercontent.com/facebook/prophet/181f4479878bea9234973e0fdfd46403657fed34/examples/example_wp_log_R.csv",
        ),
        "example_wp_log_peyton_manning.csv": RemoteFile(
            sha256="6b1383a6f458e317c5da0488abaf2cadccd7e80c84c7a543d084e1159d5bfa56",
            url="https://raw.githubusercontent.com/facebook/prophet/181f4479878bea9234973e0fdfd46403657fed34/examples/example_wp_log_peyton_manning.csv",
        ),
    },
)
Windows = tuple[NDArray[np.float32], NDArray[np.float32]]


def load(name: str) -> NDArray[np.float32]:
    """Views of consecutive days ``(D,)``; NaN where the series has a gap. The file holds natural logarithms."""
    rows = csv.DictReader(io.StringIO(read(WIKIPEDIA, name).decode()))
    days = {date.fromisoformat(row["ds"]): round(math.exp(float(row["y"]))) for row in rows}
    first = min(days)
    views = np.full((max(days) - first).days + 1, np.nan, np.float32)
    for day, count in days.items():
        views[(day - first).days] = count
    return views


def windows(views: NDArray[np.float32]) -> Windows:
    """Past ``(N, 56)``, without a gap, and future ``(N, 28)`` views; days in a gap are NaN.

    The last 28 days are only ever future.
    """
    starts = range(len(views) - WINDOW_DAYS - MAX_HORIZON_DAYS + 1)
    rows = np.stack([views[start : start + WINDOW_DAYS + MAX_HORIZON_DAYS] for start in starts])
    whole = rows[~np.isnan(rows[:, :WINDOW_DAYS]).any(1)]
    return whole[:, :WINDOW_DAYS], whole[:, WINDOW_DAYS:]


def joined(own: Provenance, names: list[str]) -> Provenance:
    """Return where data that were learned together came from."""
    other = provenance(WIKIPEDIA)
    return Provenance(
        name=f"{own.name}; {other.name}",
        licence=f"{own.licence}; {other.licence}",
        attribution=f"{own.attribution}; {other.attribution}",
        sha256=own.sha256 | {name: other.sha256[name] for name in names},
    )
