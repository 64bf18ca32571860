"""What is usual of a model: bins, stability index, tails; answers known by heart, and bugs that must be seen."""

import math
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from models.artifact.drift_profile import (
    Feature,
    Profile,
    average,
    check_profile,
    describe_feature,
    find_outliers,
    shares,
    stability_index,
)
from models.card import DriftFeatures
from models.errors import CardMismatch
from models.runtime.predictor import Predictor
from models.viewcount import FORECAST
from models.viewcount.schema import Assets


def number(**changes: Any) -> Feature:
    """Return a number with three bins in range, a half of it in the middle."""
    usual = Feature(
        name="level",
        unit="m",
        split="train",
        instances=1000,
        independent=1000.0,
        edges=[0.0, 1.0, 2.0, 4.0],
        kinds=[],
        expected=[0.001, 0.249, 0.5, 0.249, 0.001],
        limit=0.1,
    )
    return replace(usual, **changes)


KIND = number(name="label", edges=[], kinds=["a", "b"], expected=[0.75, 0.25])


def test_index_by_heart() -> None:
    """Nothing for the expected shares; (0.5 - 0.75) ln(0.5 / 0.75) + (0.5 - 0.25) ln(0.5 / 0.25) for halves."""
    expected = np.array([0.75, 0.25])
    assert stability_index(expected, np.array([75.0, 25.0])) == 0.0
    assert stability_index(expected, np.array([5.0, 5.0])) == pytest.approx(0.25 * math.log(3))
    both = stability_index(expected, np.array([[3.0, 1.0], [1.0, 1.0]]))
    assert both == pytest.approx([0.0, 0.25 * math.log(3)])


def test_index_of_what_was_never_seen() -> None:
    """A share of nothing counts as a thousandth, on both sides: the index is large, and finite."""
    found = stability_index(np.array([1.0, 0.0]), np.array([0.0, 8.0]))
    assert found == pytest.approx(2 * 0.999 * math.log(1000))
    assert stability_index(np.array([0.9999, 0.0001]), np.array([100.0, 0.0])) == pytest.approx(0.0, abs=1e-6)


def test_places() -> None:
    """Below the range, at each edge, in between and above; the upper edge is in range."""
    values = np.array([-0.1, 0.0, 0.9, 1.0, 2.0, 3.9, 4.0, 4.1])
    assert number().places(values).tolist() == [0, 1, 1, 2, 3, 3, 3, 4]
    counts = number().count(values)
    assert counts.tolist() == [1, 2, 1, 3, 1]
    assert number().outside(counts) == 2
    assert number().bins == ["00", "01", "02", "03", "04"]


def test_counts_add_up() -> None:
    """What two processes count is what one counts of both."""
    rng = np.random.default_rng(0)
    values = rng.normal(2, 2, 1000)
    whole = number().count(values)
    assert (number().count(values[:300]) + number().count(values[300:])).tolist() == whole.tolist()


def test_counts_of_kinds_and_gaps() -> None:
    """Shares of kinds are summed, an instance without any counts nowhere; nor does a number that is none."""
    assert KIND.count(np.array([[1.0, 0.0], [0.25, 0.75], [0.0, 0.0]])).tolist() == [1.25, 0.75]
    assert KIND.outside(np.array([1.0, 1.0])) == 0.0
    assert number().count(np.array([np.nan, 1.5])).tolist() == [0, 0, 1, 0, 0]


def test_shift_is_seen_and_permuted_bins_too() -> None:
    """Values of the profile's own shares stay far below the limit; shifted ones, or bins in another order, do not."""
    rng, feature = np.random.default_rng(0), number()
    positions = rng.choice(5, 4000, p=feature.shares)
    values = np.array([-0.5, 0.5, 1.5, 3.0, 5.0])[positions]
    counts = feature.count(values)
    assert stability_index(feature.shares, counts) < 0.01
    assert stability_index(feature.shares, feature.count(values + 1)) > 1
    assert stability_index(feature.shares, np.roll(counts, 1)) > 0.1
    assert stability_index(feature.shares, counts[[0, 2, 1, 3, 4]]) > 0.1


def test_tails_by_heart() -> None:
    """Twice the share of the bin and all beyond it, on the nearer side; less and less out of range."""
    tails = number().tails(np.array([1.5, 0.5, 3.9, 4.0, 4.000001, 8.0, -4.0, 1e9]))
    assert tails[:4] == pytest.approx([1.0, 0.5, 0.5, 0.5])
    assert tails[4] == pytest.approx(0.002, rel=1e-4)
    assert tails[5:] == pytest.approx([2e-6, 2e-6, 1e-9])  # one width of the range away: the outer share squared


def test_outliers_are_rare_among_the_usual() -> None:
    """Of usual instances at most one in ten has a score of 1 or more; the strange one says what is strange of it."""
    rng, features = np.random.default_rng(1), [number(), number(name="trend")]
    profile = Profile(window=1000, features=[*features, KIND])
    draw = lambda: np.array([-0.5, 0.5, 1.5, 3.0, 5.0])[rng.choice(5, 5000, p=features[0].shares)]  # noqa: E731
    usual = find_outliers(profile, {"level": draw(), "trend": draw()})
    assert not any(np.signbit(one.score) for one in usual)
    assert 0 < np.mean([one.score >= 2 for one in usual]) <= 0.01
    assert {one.feature for one in usual if one.score == 0} == {None}
    strange, hollow = find_outliers(profile, {"level": np.array([1.5, np.nan]), "trend": np.array([9.0, np.nan])})
    assert (strange.feature, hollow.feature, hollow.score) == ("trend", None, 0.0)
    assert strange.score > 3


def test_runs() -> None:
    """Means and shares of consecutive runs, some of them empty."""
    assert average(np.array([1.0, 3.0, 5.0]), [2, 0, 1])[[0, 2]].tolist() == [2.0, 5.0]
    assert np.isnan(average(np.array([1.0]), [0, 1])[0])
    assert shares([0, 1, 1, 1], [2, 0, 2], 2).tolist() == [[0.5, 0.5], [0, 0], [0, 1]]


SOUND = number(edges=[0.0, 1.0, 2.0, 4.0])


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        (replace(SOUND, name="colour"), "profile of 'colour', which is not on the card, or twice"),
        (replace(SOUND, kinds=["a"]), "profile of 'level' has other kinds than the card"),
        (replace(SOUND, edges=[0.0, 1.0, 4.0]), "profile of 'level' has bins that are none"),
        (replace(SOUND, edges=[0.0, 2.0, 1.0, 4.0]), "profile of 'level' has bins that are none"),
        (replace(SOUND, edges=[0.0, 1.0, 2.0, math.inf]), "profile of 'level' has bins that are none"),
        (replace(SOUND, expected=[0.0, 0.5, 0.5, 0.5, 0.0]), "profile of 'level' has bins that are none"),
        (replace(SOUND, expected=[-0.5, 0.5, 0.5, 0.5, 0.0]), "profile of 'level' has bins that are none"),
        (replace(SOUND, edges=[]), "profile of 'level' has bins that are none"),
    ],
)
def test_broken_profiles(feature: Feature, message: str) -> None:
    """A profile that the card cannot be held against is refused, with the feature."""
    check_profile(Profile(window=1000, features=[SOUND]), FORECAST, Assets(), "m:1")
    with pytest.raises(CardMismatch) as caught:
        check_profile(Profile(window=1000, features=[feature]), FORECAST, Assets(), "m:1")
    assert str(caught.value) == f"m:1: {message}"
    with pytest.raises(CardMismatch, match="or twice"):
        check_profile(Profile(window=1000, features=[SOUND, SOUND]), FORECAST, Assets(), "m:1")


def test_description() -> None:
    """One line for people."""
    told = "level: 5 bins of 1,000 train instances, worth 1,000; alarm above 0.1"
    assert describe_feature(number()) == told


@pytest.mark.parametrize("name", ["viewcount", "tagging", "image", "image-vit", "citation", "molecule"])
def test_every_card_measures_what_it_says(name: str, shipped: Any) -> None:
    """All features, no other, one row per instance; an instance's values do not depend on its batch-mates."""
    predictor: Predictor = shipped(name)
    traits: DriftFeatures[Any, Any] = predictor.card.traits  # type: ignore[assignment]
    rng = np.random.default_rng(3)
    samples = predictor.encode([predictor.card.random_request(rng, predictor.assets) for _ in range(9)])
    predictions = [predictor.infer([sample])[0] for sample in samples]
    of_samples = traits.of_samples(samples, predictor.assets)
    of_answers = traits.of_answers(samples, predictions, predictor.assets)
    together = of_samples | of_answers
    assert [*together] == [trait.name for trait in traits.features]
    assert {trait.name for trait in traits.features if trait.is_learned} >= of_answers.keys()
    for trait in traits.features:
        rows = (9,) if trait.kinds is None else (9, len(trait.kinds(predictor.assets)))
        assert together[trait.name].shape == rows, trait
    for position in range(9):
        alone = traits.of_samples(samples[position : position + 1], predictor.assets)
        alone |= traits.of_answers(
            samples[position : position + 1], predictions[position : position + 1], predictor.assets
        )
        for key, values in alone.items():
            np.testing.assert_allclose(together[key][position], values[0], rtol=1e-6, err_msg=key)
