"""From views to tensors and back. numpy only."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.card import Array, Feeds, Outputs, Prediction
from models.viewcount.schema import HORIZON_DAYS, Assets, Instance


class Sample(NamedTuple):
    """The last days of a channel, ``(days,)`` float32 views per day, and how far to forecast."""

    views: NDArray[np.float32]
    horizon: int


def encode(instance: Instance, assets: Assets) -> Sample:
    """Return the last ``assets.window`` days, oldest first."""
    return Sample(instance.counts[-assets.window :].astype(np.float32), instance.horizon)


def collate(samples: Sequence[Sample]) -> Feeds:
    """Return the session's feeds: ``views`` ``(batch, days)`` float32."""
    # Joined and reshaped in a third of np.stack's time.
    return {"views": np.concatenate([sample.views for sample in samples]).reshape(len(samples), -1)}


def feeds(views: NDArray[np.float64], assets: Assets) -> Feeds:
    """``encode`` and ``collate`` of rows of views ``(rows, days)``."""
    return {"views": views[:, -assets.window :].astype(np.float32, order="C")}


def answers(outputs: Outputs, assets: Assets) -> dict[str, Array]:
    """``decode`` of rows with the default horizon, each field ``(rows, horizon)``."""
    return {name: outputs[name][:, :HORIZON_DAYS] for name in ("forecast", "lower", "upper")}


def decode(outputs: Outputs, samples: Sequence[Sample], assets: Assets) -> list[Prediction]:
    """Cut each row of ``forecast``, ``lower`` and ``upper`` ``(batch, horizon)`` to the asked horizon."""
    return [
        {name: outputs[name][row, : sample.horizon] for name in ("forecast", "lower", "upper")}
        for row, sample in enumerate(samples)
    ]


def cost(sample: Sample) -> int:
    """Every sample is one row."""
    return 1
