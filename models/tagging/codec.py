"""From words to tensors and back. numpy only."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.card import Feeds, Outputs, Prediction
from models.tagging import spelling
from models.tagging.schema import Assets, Instance, find_flaw, has_flaws


class Sample(NamedTuple):
    """A sentence: ``T`` words and their feature ids ``(T, features)`` int64."""

    tokens: list[str]
    features: NDArray[np.int64]


def encode(instance: Instance, assets: Assets) -> Sample:
    """Return the words with their feature ids, each in ``0 <= id < assets.rows``."""
    words = instance.cut(assets)
    content = bytearray().join(map(assets.features, words))
    features = np.frombuffer(content, np.int64).reshape(-1, spelling.FEATURES)  # (T, F)
    features[:1, spelling.PLACE] = spelling.FIRST
    return Sample(words, features)


def collate(samples: Sequence[Sample]) -> Feeds:
    """Pack sentences end to end, with the way into a padded grid and back.

    Only attention sees the grid; everything else runs on packed words, so that padding costs little and a
    sentence's tags do not depend on its batch-mates.

    Args:
        samples: ``S`` sentences, of any length ``T_i`` including 0.

    Returns:
        The session's feeds: ``features`` ``(sum T_i, F)`` int64; ``grid`` ``(S, max T_i)`` int64, the packed
        word in each cell, 0 where there is none; ``keep`` ``(S, max T_i)`` bool, where there is one; ``back``
        ``(sum T_i,)`` int64, the cell of each packed word in the flattened grid.
    """
    lengths = np.array([len(sample.tokens) for sample in samples], np.int64)
    return pack(np.concatenate([sample.features for sample in samples]), lengths)


def pack(features: NDArray[np.int64], lengths: NDArray[np.int64]) -> Feeds:
    """The session's feeds, of sentences with so many words ``(S,)``, end to end in ``features`` ``(sum T_i, F)``."""
    keep = np.arange(lengths.max(initial=0)) < lengths[:, None]  # (S, W)
    grid = np.zeros(keep.shape, np.int64)
    grid[keep] = np.arange(lengths.sum())
    return {"features": features, "grid": grid, "keep": keep, "back": np.flatnonzero(keep)}


def connect(feeds: Feeds, sizes: Mapping[str, int], wanted: Mapping[str, int]) -> None:
    """Say where the words lie in a wider grid; what was filled in is read from the first word, and by nobody."""
    words = feeds["back"][: sizes["tokens"]]
    rows, columns = np.divmod(words, max(1, sizes["width"]))
    words[:] = rows * wanted["width"] + columns


def decode(outputs: Outputs, samples: Sequence[Sample], assets: Assets) -> list[Prediction]:
    """Return the likeliest tag of each word by ``scores`` ``(sum T_i, tags)``; attention, cut to the sentence."""
    found = answers(outputs)
    winners, best = [assets.tags[winner] for winner in found["tags"].tolist()], found["scores"]
    predictions: list[Prediction] = []
    start = 0
    for row, sample in enumerate(samples):
        length = len(sample.tokens)
        end = start + length
        prediction = {"tokens": sample.tokens, "tags": winners[start:end], "scores": best[start:end]}
        if "attention" in outputs:
            prediction["attention"] = outputs["attention"][row, :, :, :length, :length]
        predictions.append(prediction)
        start = end
    return predictions


def cost(sample: Sample) -> int:
    """Return its words; an empty sentence takes one unit, so that a batch of them is bounded too."""
    return max(1, len(sample.tokens))


def words(sample: Sample) -> list[str]:
    """Those that were encoded."""
    return sample.tokens


def accept(words: Sequence[str], assets: Assets) -> NDArray[np.bool_]:
    """Return which words have no flaw, ``(words,)``."""
    if not has_flaws(words):  # most of the time
        return np.ones(len(words), bool)
    return np.fromiter((find_flaw(word) is None for word in words), bool, len(words))


def encode_words(words: Sequence[str], assets: Assets) -> NDArray[np.int64]:
    """Return the feature ids of each word as if it opened no sentence, ``(words, F)``."""
    return np.frombuffer(b"".join(map(assets.features, words)), np.int64).reshape(-1, spelling.FEATURES)


def costs(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the ``cost`` of sentences with so many words, ``(S,)``."""
    return np.maximum(1, lengths)


def feeds(features: NDArray[np.int64], lengths: NDArray[np.int64]) -> Feeds:
    """Return what ``collate`` makes of sentences whose words are end to end in ``features`` ``(sum T_i, F)``.

    Args:
        features: As of ``encode_words``; in place, those that open a sentence are told so.
        lengths: Words of each sentence, ``(S,)``.
    """
    starts = lengths.cumsum() - lengths
    features[starts[lengths > 0], spelling.PLACE] = spelling.FIRST
    return pack(features, lengths)


def answers(outputs: Outputs) -> dict[str, NDArray[Any]]:
    """Of each word the place of the likeliest tag and its score, by ``scores`` ``(sum T_i, tags)``."""
    scores = outputs["scores"]
    winners = scores.argmax(axis=1)
    # The largest of each few takes numpy five times as long.
    return {"tags": winners, "scores": scores[np.arange(len(winners)), winners]}


def names(assets: Assets) -> dict[str, list[str]]:
    """Return the tags in the order of the scores."""
    return {"tags": assets.tags}
