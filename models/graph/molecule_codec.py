"""From molecules to tensors and back. numpy only."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.card import Feeds, Outputs, Prediction
from models.graph.edges import Ints, by_distance, canonical, side_by_side
from models.graph.molecule_schema import Assets, Instance


class Sample(NamedTuple):
    """A molecule: two features per atom ``(N, 2)``, its symbol and its count of bonds; edges as of a paper."""

    features: Ints
    edges: Ints


def encode(instance: Instance, assets: Assets) -> Sample:
    """Symbols and bond counts: attention averages over neighbours, so it cannot count them itself."""
    atoms = len(instance.atoms)
    edges = canonical(instance.bonds, atoms)
    bonds = np.bincount(edges[1]) - 1  # every atom also has its self-loop
    features = np.empty((atoms, 2), np.int64)
    features[:, 0] = [assets.symbol_ids[symbol] for symbol in instance.atoms]
    features[:, 1] = len(assets.atoms) + np.minimum(bonds, assets.degrees - 1)
    return Sample(features, by_distance(edges, atoms, assets.hops))


def collate(samples: Sequence[Sample]) -> Feeds:
    """Return all molecules as one graph whose parts do not touch.

    Returns:
        ``features`` ``(features,)``, ``node_of_feature`` ``(features,)``, ``features_of_node`` ``(nodes,)``,
        ``edges`` ``(ends, edges)``, ``graph_of_node`` ``(nodes,)``, ``nodes_of_graph`` ``(graphs,)``, all int64.
    """
    features = np.concatenate([sample.features for sample in samples])  # (N, 2)
    atoms = np.asarray([len(sample.features) for sample in samples])
    return {
        "features": features.ravel(),
        "node_of_feature": np.repeat(np.arange(len(features)), 2),
        "features_of_node": np.full(len(features), 2),
        "edges": side_by_side([sample.edges for sample in samples], atoms.tolist()),
        "graph_of_node": np.repeat(np.arange(len(samples)), atoms),
        "nodes_of_graph": atoms,
    }


def decode(outputs: Outputs, samples: Sequence[Sample], assets: Assets) -> list[Prediction]:
    """Return the likeliest class of each row of ``scores`` ``(graphs, classes)``, and its attention if asked for."""
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
        cuts = np.cumsum([sample.edges.shape[1] for sample in samples])[:-1]
        weights = np.split(outputs["attention"], cuts)  # each (E, H)
        for prediction, sample, part in zip(predictions, samples, weights, strict=True):
            prediction["attention"] = {
                "edges": np.ascontiguousarray(sample.edges[:2].T),
                "weights": np.ascontiguousarray(part.T),
            }
    return predictions


def cost(sample: Sample) -> int:
    """Atoms and edges."""
    return len(sample.features) + len(sample.edges[1])
