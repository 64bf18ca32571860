"""Measure molecules and their labels for drift. numpy only."""

from collections.abc import Sequence

import numpy as np

from models.artifact.drift_profile import shares
from models.card import Array, DriftFeature, DriftFeatures, Prediction
from models.graph.molecule_codec import Sample
from models.graph.molecule_schema import Assets


def of_samples(samples: Sequence[Sample], assets: Assets) -> dict[str, Array]:
    """Atoms, bonds of an atom on average, and the elements, each atom an equal part of its molecule."""
    atoms = [len(sample.features) for sample in samples]
    # The third row, where there is one, is the hop.
    edges = [s.edges.shape[1] if len(s.edges) == 2 else np.count_nonzero(s.edges[2] == 1) for s in samples]
    counts = np.array(atoms, np.float64)
    return {
        "atoms": counts,
        "degree": np.array(edges) / counts - 1,  # every atom also hears itself
        "elements": shares(np.concatenate([s.features[:, 0] for s in samples]), atoms, len(assets.atoms)),
    }


def of_answers(samples: Sequence[Sample], predictions: Sequence[Prediction], assets: Assets) -> dict[str, Array]:
    """Return the label, and its probability."""
    labels = [answer["class_id"] for answer in predictions]
    return {
        "label": shares(labels, [1] * len(labels), len(assets.classes)),
        "confidence": np.array([answer["score"] for answer in predictions], np.float64),
    }


TRAITS = DriftFeatures(
    features=(
        DriftFeature(name="atoms", unit="atoms of a molecule"),
        DriftFeature(name="degree", unit="bonds of an atom, mean of a molecule"),
        DriftFeature(name="elements", unit="share of a molecule's atoms", kinds=lambda assets: assets.atoms),
        DriftFeature(name="label", unit="label", is_learned=True, kinds=lambda assets: assets.classes),
        DriftFeature(name="confidence", unit="probability of the label", is_learned=True),
    ),
    of_samples=of_samples,
    of_answers=of_answers,
)
