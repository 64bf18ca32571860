"""From a picture to tensors and back. numpy only."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from msgspec import UnsetType
from numpy.typing import NDArray

from models.card import Feeds, Outputs, Prediction
from models.image.schema import Assets, Instance

Sample: TypeAlias = NDArray[np.uint8]


def encode(instance: Instance, assets: Assets) -> Sample:
    """Return the picture in the model's size and colours, ``(channels, height, width)`` uint8."""
    if isinstance(instance.pixels, np.ndarray):
        return instance.pixels.reshape(assets.height, assets.width, -1).transpose(2, 0, 1)
    if not isinstance(instance.pixels, UnsetType):
        # Half the time of np.array over the nested lists; the types have bounded every number.
        return np.frombuffer(b"".join(map(bytes, instance.pixels)), np.uint8).reshape(1, assets.height, assets.width)
    return instance.fit(assets)


def collate(samples: Sequence[Sample]) -> Feeds:
    """Return the session's feeds: ``pixels`` ``(batch, channels, height, width)`` uint8."""
    return {"pixels": np.stack(samples)}


def decode(outputs: Outputs, samples: Sequence[Sample], assets: Assets) -> list[Prediction]:
    """Return the likeliest class of each row of ``scores`` ``(batch, classes)``, and its attention if asked for."""
    scores = outputs["scores"]
    winners = scores.argmax(axis=1).tolist()
    predictions: list[Prediction] = [
        {
            "label": assets.classes[winner],
            "class_id": winner,
            "score": scores[row, winner],
            "scores": scores[row],
        }
        for row, winner in enumerate(winners)
    ]
    if "attention" in outputs:
        for row, prediction in enumerate(predictions):
            prediction["attention"] = outputs["attention"][row]
    return predictions


def cost(sample: Sample) -> int:
    """Every picture has the model's size: one row."""
    return 1
