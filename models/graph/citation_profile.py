"""Measure papers and their labels for drift. numpy only.

Only of the papers that are asked for: how many others an answer depends on is a matter of the resident graph, and how
many are asked for together is the caller's.
"""

from collections.abc import Sequence
from itertools import chain

import numpy as np

from models.artifact.drift_profile import average, shares
from models.card import Array, DriftFeature, DriftFeatures, Prediction
from models.graph.citation_codec import Sample
from models.graph.citation_schema import Assets


def of_samples(samples: Sequence[Sample], assets: Assets) -> dict[str, Array]:
    """Words of a paper and links to it, on average of those asked for."""
    offsets = np.cumsum([0, *(len(sample.names) for sample in samples)])
    asked = [len(sample.ask) for sample in samples]
    ask = np.concatenate([sample.ask for sample in samples]) + np.repeat(offsets[:-1], asked)
    # The third row, where there is one, is the hop.
    targets = [sample.edges[1] if len(sample.edges) == 2 else _near(sample) for sample in samples]
    ends = np.concatenate(targets) + np.repeat(offsets[:-1], [len(part) for part in targets])
    links = np.bincount(ends, minlength=offsets[-1])[ask] - 1  # every paper also hears itself
    words = np.concatenate([sample.words_of_node for sample in samples])[ask]
    return {"words": average(words, asked), "degree": average(links, asked)}


def _near(sample: Sample) -> Array:
    near: Array = sample.edges[1, sample.edges[2] == 1]
    return near


def of_answers(samples: Sequence[Sample], predictions: Sequence[Prediction], assets: Assets) -> dict[str, Array]:
    """Return the labels, each an equal part, and the mean of their probabilities."""
    asked = [len(answer["class_ids"]) for answer in predictions]
    labels = [*chain.from_iterable(answer["class_ids"] for answer in predictions)]
    scores = np.concatenate([answer["scores"] for answer in predictions])
    return {
        "label": shares(labels, asked, len(assets.classes)),
        "confidence": average(scores.max(axis=1), asked),
    }


TRAITS = DriftFeatures(
    features=(
        DriftFeature(name="words", unit="words of a paper"),
        DriftFeature(name="degree", unit="links of a paper"),
        DriftFeature(name="label", unit="label", is_learned=True, kinds=lambda assets: assets.classes),
        DriftFeature(name="confidence", unit="probability of the label", is_learned=True),
    ),
    of_samples=of_samples,
    of_answers=of_answers,
)
