"""Measure sentences and tags for drift. numpy only."""

from collections.abc import Sequence
from itertools import chain

import numpy as np

from models.artifact.drift_profile import average, shares
from models.card import Array, DriftFeature, DriftFeatures, Prediction
from models.tagging import spelling
from models.tagging.codec import Sample
from models.tagging.schema import Assets


def of_samples(samples: Sequence[Sample], assets: Assets) -> dict[str, Array]:
    """Length, and how many of the words are not in the vocabulary."""
    lengths = [len(sample.tokens) for sample in samples]
    identities = np.concatenate([sample.features[:, spelling.IDENTITY] for sample in samples])
    return {
        "words": np.array(lengths, np.float64),
        "unknown_words": average(identities == spelling.UNKNOWN, lengths),
    }


def of_answers(samples: Sequence[Sample], predictions: Sequence[Prediction], assets: Assets) -> dict[str, Array]:
    """Tags, each word's an equal part of its sentence, and the mean of their probabilities."""
    lengths = [len(answer["tags"]) for answer in predictions]
    tag_ids = {tag: index for index, tag in enumerate(assets.tags)}
    tags = [tag_ids[tag] for tag in chain.from_iterable(answer["tags"] for answer in predictions)]
    scores = np.concatenate([answer["scores"] for answer in predictions])
    return {"tags": shares(tags, lengths, len(assets.tags)), "confidence": average(scores, lengths)}


TRAITS = DriftFeatures(
    features=(
        DriftFeature(name="words", unit="words in a sentence"),
        # The vocabulary was made of the training sentences.
        DriftFeature(name="unknown_words", unit="share of a sentence's words", is_learned=True),
        DriftFeature(
            name="tags", unit="share of a sentence's words", is_learned=True, kinds=lambda assets: assets.tags
        ),
        DriftFeature(name="confidence", unit="mean probability of a sentence's tags", is_learned=True),
    ),
    of_samples=of_samples,
    of_answers=of_answers,
)
