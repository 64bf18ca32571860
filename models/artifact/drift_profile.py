"""Describe usual requests and answers, and measure how far others are from them. Torch-free.

A feature's values fall into a few bins. The manifest says which share of the training data (of the validation data,
for what training flatters) is in each. Serving counts into the same bins; counts of several processes add up.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from propcache.api import cached_property

from models.card import AnyCard, Array, Assets, DriftFeatures, Prediction
from models.errors import CardMismatch

Floats = NDArray[np.float64]

# A share below it counts as so much, expected or found: one stray request in a thousand is no shift.
LEAST_SHARE = 1e-3
# 10 to the minus this is less than anybody can say of a tail.
MOST_SURPRISE = 9.0


class Feature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """Describe what is usual of one feature.

    Attributes:
        name: The card's.
        unit: The card's.
        split: The data it was learned from, ``train`` or ``validation``.
        instances: How many they were.
        independent: What they are worth, since days or sentences that follow on each other are alike.
        edges: Of a number's bins, ascending; what is below the first or above the last is out of range.
        kinds: Names of the bins of a feature that is no number.
        expected: Share of each bin: one below the range, those between the edges, one above; or one of each kind.
        limit: A stability index above it is an alarm.
    """

    name: str
    unit: str
    split: str
    instances: int
    independent: float
    edges: list[float]
    kinds: list[str]
    expected: list[float]
    limit: float

    @property
    def bins(self) -> list[str]:
        """Names of the bins, in order."""
        return self.kinds or [f"{bin_name:02}" for bin_name in range(len(self.edges) + 1)]

    @cached_property
    def shares(self) -> Floats:
        """``expected`` as an array."""
        return np.array(self.expected, np.float64)

    @cached_property
    def _bounds(self) -> Floats:
        return np.array(self.edges, np.float64)

    def places(self, values: Floats) -> NDArray[np.intp]:
        """Return the bin of each number; the last bin in range holds its upper edge too."""
        bins: NDArray[np.intp] = self._bounds[:-1].searchsorted(values, side="right")
        bins += values > self._bounds[-1]
        return bins

    def count(self, values: Array) -> Floats:
        """Return how many of ``(B,)`` numbers, or what of ``(B, kinds)`` shares, are in each bin."""
        if self.kinds:
            whole: Floats = values.sum(axis=0, dtype=np.float64)
            return whole
        finite = values[np.isfinite(values)]
        return np.bincount(self.places(finite), minlength=len(self.expected)).astype(np.float64)

    def outside(self, counts: Floats) -> float:
        """Return how many of the counted are out of range."""
        return 0.0 if self.kinds else float(counts[0] + counts[-1])

    def tails(self, values: Floats) -> Floats:
        """At most which share of ordinary values is as far out as each number, on the same side, twice; at most 1.

        In range it is the share of the bin and of all beyond. Out of range it falls with the distance, in every width
        of the range by the power of the outermost bin's share.
        """
        bins = np.minimum(self.places(values), len(self.expected) - 1)
        low, high = self._bounds[0], self._bounds[-1]
        below, above = np.cumsum(self.shares)[bins], np.cumsum(self.shares[::-1])[::-1][bins]
        beyond = np.maximum(np.maximum(low - values, values - high), 0.0) / max(high - low, 1e-9)
        tails: Floats = np.clip(2 * np.minimum(below, above) ** (1 + beyond), 10**-MOST_SURPRISE, 1.0)
        return tails


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Describe what is usual of a model's requests and answers.

    Attributes:
        window: Latest instances the limits are meant for.
        features: By the card's order.
    """

    window: int
    features: list[Feature]


class Outlier(msgspec.Struct, frozen=True, kw_only=True):
    """Describe how unusual an instance is.

    Attributes:
        score: Minus the decimal logarithm of the share of ordinary instances that are as unusual, at most: 3 is one
            in a thousand, 0 is nothing special.
        feature: What is most unusual of it; none at 0.
    """

    score: float
    feature: str | None


def stability_index(expected: Floats, counts: Floats) -> Floats:
    """Population stability index of counts ``(..., bins)``: 0 for the expected shares, larger the farther from them.

    The sum over the bins of ``(found - expected) * ln(found / expected)``, the symmetric Kullback-Leibler divergence
    (Kullback and Leibler 1951, https://doi.org/10.1214/aoms/1177729694); by custom less than 0.1 is no change.
    """
    total = counts.sum(axis=-1, keepdims=True)
    found = np.maximum(counts / np.maximum(total, 1e-9), LEAST_SHARE)
    usual = np.maximum(expected, LEAST_SHARE)
    index: Floats = ((found - usual) * np.log(found / usual)).sum(axis=-1)
    return index


def average(values: Array, lengths: Sequence[int]) -> Floats:
    """Means of consecutive runs of values ``(sum of lengths,)``; NaN of an empty run."""
    counts = np.asarray(lengths)
    sums = np.bincount(np.repeat(np.arange(len(counts)), counts), values, minlength=len(counts))
    means: Floats = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return means


def shares(ids: Sequence[int] | Array, lengths: Sequence[int], kinds: int) -> Floats:
    """Shares ``(B, kinds)`` of the kinds in consecutive runs of their numbers; zeros of an empty run."""
    counts = np.asarray(lengths)
    codes = np.repeat(np.arange(len(counts)) * kinds, counts) + np.asarray(ids, np.int64)
    table = np.bincount(codes, minlength=len(counts) * kinds).reshape(len(counts), kinds)
    found: Floats = table / np.maximum(counts, 1)[:, None]
    return found


def measure(
    traits: DriftFeatures[Any, Any], samples: Sequence[Any], predictions: Sequence[Prediction], assets: Assets
) -> dict[str, Array]:
    """Return all that is watched of samples and their predictions."""
    return traits.of_samples(samples, assets) | traits.of_answers(samples, predictions, assets)


def find_outliers(profile: Profile, measured: Mapping[str, Array]) -> list[Outlier]:
    """Return how unusual each measured instance is, by its most unusual number.

    Of ``F`` numbers one is always the most unusual, so its tail counts ``F`` times (Bonferroni): of ordinary
    instances at most one in a thousand has 3 or more.
    """
    numbers = [feature for feature in profile.features if not feature.kinds]
    tails = np.stack([feature.tails(np.nan_to_num(measured[feature.name])) for feature in numbers])
    for row, feature in enumerate(numbers):
        tails[row, ~np.isfinite(measured[feature.name])] = 1.0
    worst = tails.argmin(axis=0)
    scores = np.maximum(0.0, -np.log10(np.minimum(1.0, len(numbers) * tails.min(axis=0))))
    # Nothing special is 0, not the minus zero that the logarithm of 1 becomes.
    return [
        Outlier(score=round(score, 2) + 0.0, feature=numbers[bin_name].name if score > 0 else None)
        for score, bin_name in zip(scores.tolist(), worst.tolist(), strict=True)
    ]


def check_profile(profile: Profile, card: AnyCard, assets: Assets, tag: str) -> None:
    """Compare a profile with what the card can measure.

    Raises:
        CardMismatch: If it has a feature that the card has not, or bins that are none.
    """
    traits = {} if card.traits is None else {trait.name: trait for trait in card.traits.features}
    for feature in profile.features:
        trait = traits.pop(feature.name, None)
        if trait is None:
            raise CardMismatch(f"{tag}: profile of {feature.name!r}, which is not on the card, or twice")
        if feature.kinds != ([] if trait.kinds is None else [*trait.kinds(assets)]):
            raise CardMismatch(f"{tag}: profile of {feature.name!r} has other kinds than the card")
        if not _is_sound(feature):
            raise CardMismatch(f"{tag}: profile of {feature.name!r} has bins that are none")


def describe_feature(feature: Feature) -> str:
    """Return a line for people."""
    return (
        f"{feature.name}: {len(feature.expected)} bins of {feature.instances:,} {feature.split} instances, "
        f"worth {feature.independent:,.0f}; alarm above {feature.limit:g}"
    )


def _is_sound(feature: Feature) -> bool:
    """Shares of all bins, of all together 1, between edges that rise."""
    edges, found = np.array(feature.edges), feature.shares
    numbers = np.array([*feature.edges, *feature.expected, feature.limit])
    are_bins = len(found) == len(feature.bins) and (bool(feature.kinds) != (len(edges) > 1))
    rises = bool((np.diff(edges) > 0).all()) or (len(edges) == 2 and edges[0] == edges[1])
    return are_bins and rises and bool(np.isfinite(numbers).all()) and found.min() >= 0 and abs(found.sum() - 1) < 1e-3
