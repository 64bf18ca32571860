"""Views as a raw tensor. numpy only."""

from collections.abc import Mapping

import numpy as np

from models.card import Array
from models.tensors import ONE_ROW, Tensors, demand_each
from models.viewcount.codec import Sample
from models.viewcount.schema import MAX_VIEWS_PER_DAY, Assets

REASON = f"expected a whole number from 0 to {MAX_VIEWS_PER_DAY}"


def samples(feeds: Mapping[str, Array], assets: Assets) -> list[Sample]:
    """Return one channel per row of ``views`` ``(batch, days)`` float32, forecast as far as the model does.

    Raises:
        InvalidRequest: If a number is no count of views.
    """
    views = feeds["views"]
    # Of a number that is none each of these is false, so it is found among the others.
    if not (views.min() >= 0 and views.max() <= MAX_VIEWS_PER_DAY and np.rint(views).tobytes() == views.tobytes()):
        with np.errstate(invalid="ignore"):
            is_good = (views >= 0) & (views <= MAX_VIEWS_PER_DAY) & (np.rint(views) == views)
        demand_each(is_good, views, "views", REASON)
    return [Sample(row, assets.horizon) for row in views]


TENSORS = Tensors(samples=samples, steps=lambda sample: ONE_ROW)
