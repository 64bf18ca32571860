"""Measure pictures and classes for drift. numpy only."""

from collections.abc import Sequence

import numpy as np

from models.artifact.drift_profile import shares
from models.card import Array, DriftFeature, DriftFeatures, Prediction
from models.image.codec import Sample
from models.image.schema import Assets


def of_samples(samples: Sequence[Sample], assets: Assets) -> dict[str, Array]:
    """Mean and spread of all values of a picture."""
    values = np.stack(samples).reshape(len(samples), -1).astype(np.float32)
    brightness = values.mean(axis=1)
    values -= brightness[:, None]
    return {"brightness": brightness, "contrast": np.sqrt(np.einsum("bv,bv->b", values, values) / values.shape[1])}


def of_answers(samples: Sequence[Sample], predictions: Sequence[Prediction], assets: Assets) -> dict[str, Array]:
    """Return the class, and its probability."""
    classes = [answer["class_id"] for answer in predictions]
    return {
        "class": shares(classes, [1] * len(classes), len(assets.classes)),
        "confidence": np.array([answer["score"] for answer in predictions], np.float64),
    }


TRAITS = DriftFeatures(
    features=(
        DriftFeature(name="brightness", unit="mean grey value, 0 to 255"),
        DriftFeature(name="contrast", unit="standard deviation of the grey values"),
        DriftFeature(name="class", unit="class", is_learned=True, kinds=lambda assets: assets.classes),
        DriftFeature(name="confidence", unit="probability of the class", is_learned=True),
    ),
    of_samples=of_samples,
    of_answers=of_answers,
)
