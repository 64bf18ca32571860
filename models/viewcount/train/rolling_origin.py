"""Validate on rolling origins."""

import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path
from statistics import fmean
from typing import Any

from models.training.ending import GO_ON, TrainingEnd
from models.training.loop import Recipe, fit, seed_everything
from models.viewcount.train.data import ViewData, load
from models.viewcount.train.recipe import ViewCountLearner

# Validation, test, end: the half years 2019-07, 2020-01 and 2020-07, each validated on the one before.
ORIGINS = (
    (date(2019, 1, 1), date(2019, 7, 1), date(2020, 1, 1)),
    (date(2019, 7, 1), date(2020, 1, 1), date(2020, 7, 1)),
    (date(2020, 1, 1), date(2020, 7, 1), date(2021, 1, 1)),
)


def earlier(data: ViewData, origin: tuple[date, date, date]) -> ViewData:
    """Return the data as they were at the origin's end: what came later is not there."""
    validation, test, end = ((day - data.first_day).days for day in origin)
    return replace(data, views=data.views[:end], bounds=(validation, test, end))


def measure(recipe: Recipe, seed: int = 0) -> list[float]:
    """Return the recipe's error at each origin, in views per day."""
    data, errors = load(), []
    for origin in ORIGINS:
        seed_everything(seed)
        learner = ViewCountLearner(recipe, None, seed, earlier(data, origin))
        with tempfile.TemporaryDirectory() as folder:
            report = fit(learner, recipe, seed=seed, directory=Path(folder), quiet=True)
        errors.append(float(report["scores"]["test"]))
    return errors


class RollingLearner(ViewCountLearner):
    """Reports its recipe's error at each origin too; of the first seed, on the public series."""

    def finish(self, directory: Path, ending: TrainingEnd = GO_ON) -> dict[str, Any]:
        """As ever; ``rolling_origin`` with the last call, since the net is finished then."""
        is_last = self.is_calibrated or not self.method.is_pooled
        more = super().finish(directory, ending)
        if not is_last or self.seed or self.path is not None:
            return more
        errors = measure(self.recipe, self.seed)
        ends = [end.isoformat() for _, _, end in ORIGINS]
        return more | {
            "rolling_origin": {
                "mean": round(fmean(errors), 1),
                "until": {end: round(error, 1) for end, error in zip(ends, errors, strict=True)},
            }
        }
