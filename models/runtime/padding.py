"""Check indices, and fill batches up to a bucket, by the card's axes. numpy only.

A GPU reads whatever lies behind a table when an index is too large, and says nothing; and it prepares for every new
shape anew. So before feeds go there, indices are held against the sizes, and every dynamic axis is filled up to the
next bucket. What was filled in is cut off the outputs, and no answer depends on it.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from models.budget import Budget
from models.card import AnyCard, Array, Assets, Feeds, TensorSpec
from models.errors import RunnerFailed

# Free lengths below it share a bucket: with several axes there would be hundreds of small shapes.
LEAST_LENGTH = 16

Sizes = dict[str, int]


def axis_sizes(feeds: Feeds, specs: Sequence[TensorSpec], fixed: Mapping[str, int]) -> Sizes:
    """Sizes of all axes by name; static ones are ``fixed``."""
    found = dict(fixed)
    for spec in specs:
        found.update(zip(spec.axes, feeds[spec.name].shape, strict=True))
    return found


def check_indices(feeds: Feeds, specs: Sequence[TensorSpec], sizes: Mapping[str, int]) -> None:
    """Let feeds pass whose every index is in its table.

    Raises:
        RunnerFailed: Naming the first input that has another.
    """
    for spec in specs:
        if spec.below:
            feed = feeds[spec.name] if spec.indices is None else feeds[spec.name][: spec.indices]
            bound = prod(sizes[axis] for axis in spec.below)
            # As unsigned numbers negative ones are the largest of all: one pass instead of two.
            if feed.size and int(feed.view(np.uint64).max()) >= bound:
                raise RunnerFailed(f"input {spec.name!r} has an index outside of 0 .. {bound - 1}")


def bucket(size: int, least: int = 1) -> int:
    """Return the next power of two, and at least ``least``."""
    return max(least, 1 << (size - 1).bit_length() if size > 1 else 1)


def dynamic_axes(card: AnyCard, assets: Assets) -> list[str]:
    """Axes of the inputs whose size is the request's, in the card's order."""
    axes = dict.fromkeys(axis for spec in card.inputs for axis in spec.axes)
    return [axis for axis in axes if axis not in assets.sizes]


def list_buckets(card: AnyCard, assets: Assets) -> dict[str, list[int]]:
    """Return the sizes of each dynamic axis that a micro-batch within the budget can have."""
    axes = dynamic_axes(card, assets)
    return {axis: _ladder(_least(axes), card.budget) for axis in axes}


def _ladder(least: int, budget: Budget) -> list[int]:
    powers = range(bucket(least).bit_length() - 1, bucket(budget.batch).bit_length())
    return [1 << power for power in powers]


def _least(axes: Sequence[str]) -> int:
    return 1 if len(axes) == 1 else LEAST_LENGTH


def fill(feeds: Feeds, specs: Sequence[TensorSpec], sizes: Mapping[str, int]) -> Feeds:
    """Return each tensor with zeros behind what it holds, so that its axes have these sizes."""
    filled = {}
    for spec in specs:
        feed = feeds[spec.name]
        whole = np.zeros([sizes[axis] for axis in spec.axes], feed.dtype)
        whole[tuple(map(slice, feed.shape))] = feed
        filled[spec.name] = whole
    return filled


class BucketedFeeds(NamedTuple):
    """Feeds as the engine gets them, and the sizes to cut its outputs to; ``None`` where nothing was filled in."""

    feeds: Feeds
    sizes: Sizes | None


class Bucketing:
    """Describe what is done to the feeds of one model before its engine sees them, and to its outputs after.

    Args:
        card: What the model promises.
        assets: Its constants.
        is_padded: Whether its batches are filled up to a bucket.
    """

    def __init__(self, card: AnyCard, assets: Assets, *, is_padded: bool) -> None:
        self._card, self._fixed, self._is_padded = card, assets.sizes, is_padded
        self._axes = dynamic_axes(card, assets)
        self._least = _least(self._axes)
        self._outputs = {spec.name: spec for spec in card.outputs}

    def fit(self, feeds: Feeds) -> BucketedFeeds:
        """Checked and, where wanted, filled up.

        Raises:
            RunnerFailed: If an index is outside its table.
        """
        card = self._card
        sizes = axis_sizes(feeds, card.inputs, self._fixed)
        check_indices(feeds, card.inputs, sizes)
        if not self._is_padded:
            return BucketedFeeds(feeds, None)
        wanted = dict(sizes)
        for axis in self._axes:
            wanted[axis] = bucket(sizes[axis] + (axis in card.spare_axes), self._least)
        if wanted == sizes:
            return BucketedFeeds(feeds, None)
        filled = fill(feeds, card.inputs, wanted)
        if card.connect is not None:
            card.connect(filled, sizes, wanted)
        return BucketedFeeds(filled, sizes)

    def cut(self, outputs: Mapping[str, Array], sizes: Sizes) -> dict[str, Array]:
        """Outputs without what was filled in."""
        return {
            name: values[tuple(slice(sizes.get(axis)) for axis in self._outputs[name].axes)]
            for name, values in outputs.items()
        }
