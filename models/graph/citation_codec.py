"""From papers to tensors and back. numpy only."""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from msgspec import UnsetType

from models.card import Feeds, Outputs, Prediction
from models.graph.citation_schema import Assets, Instance, NewPaper
from models.graph.edges import Ints, by_distance, canonical, side_by_side, surroundings, take


class Sample(NamedTuple):
    """A graph, or several side by side, and which of its nodes to label.

    Attributes:
        words: Word ids of all nodes end to end, ``(W,)``, ascending and each once within a node.
        words_of_node: How many belong to each node, ``(N,)``.
        edges: Canonical, ``(2, E)``, or by distance, ``(3, E)``.
        ask: Nodes to label, ``(A,)``; one may occur several times.
        names: What the asker calls each node, ``(N,)``.
    """

    words: Ints
    words_of_node: Ints
    edges: Ints
    ask: Ints
    names: Ints


def encode(instance: Instance, assets: Assets) -> Sample:
    """Return the request's own graph, or what its answers depend on in the resident one."""
    if not isinstance(instance.words, UnsetType):
        edges = canonical([] if isinstance(instance.edges, UnsetType) else instance.edges, len(instance.words))
        every = np.arange(len(instance.words))
        return Sample(*_bags(instance.words), by_distance(edges, len(every), assets.hops), every, every)
    if not isinstance(instance.new, UnsetType):
        return _merge([_encode_new(paper, number, assets) for number, paper in enumerate(instance.new)])
    ids = np.asarray(instance.node_ids, np.int64)
    nodes, edges = surroundings(assets.neighbours, ids, assets.hops * len(assets.heads))
    edges = by_distance(edges, len(nodes), assets.hops)
    return Sample(*take(*assets.bags, nodes), edges, np.searchsorted(nodes, ids), nodes)


def resident(assets: Assets) -> Sample:
    """Return the whole resident graph, every node asked."""
    every = np.arange(len(assets.papers))
    starts, words = assets.bags
    return Sample(words, np.diff(starts), by_distance(assets.edges, len(every), assets.hops), every, every)


def _encode_new(paper: NewPaper, number: int, assets: Assets) -> Sample:
    """Return the surroundings of the papers it cites, one hop less than its own, and the paper as the last node."""
    cited = np.unique(np.asarray(paper.cites, np.int64))
    nodes, edges = surroundings(assets.neighbours, cited, assets.hops * len(assets.heads) - 1)
    last = len(nodes)
    positions = np.searchsorted(nodes, cited)
    own, count = _bags([paper.words])
    words, counts = take(*assets.bags, nodes)
    return Sample(
        np.concatenate([words, own]),
        np.concatenate([counts, count]),
        by_distance(_link(edges, positions, last), last + 1, assets.hops),
        np.asarray([last]),
        np.concatenate([nodes, [-1 - number]]),
    )


def _link(edges: Ints, positions: Ints, last: int) -> Ints:
    """Edges with one more node, ``last``, linked to some places: the last source of each, so in order."""
    into = np.stack([np.full_like(positions, last), positions])
    joined = np.concatenate([edges, into], axis=1)
    joined = joined[:, np.argsort(joined[1], kind="stable")]
    tail = np.append(positions, last)
    return np.concatenate([joined, np.stack([tail, np.full_like(tail, last)])], axis=1)


def _bags(papers: Iterable[Sequence[int]]) -> tuple[Ints, Ints]:
    bags = [sorted(set(paper)) for paper in papers]
    counts = np.fromiter(map(len, bags), np.int64, len(bags))
    return np.fromiter(chain.from_iterable(bags), np.int64, counts.sum()), counts


def _merge(samples: Sequence[Sample]) -> Sample:
    nodes = [len(sample.names) for sample in samples]
    offsets = np.cumsum([0, *nodes[:-1]])
    return Sample(
        np.concatenate([sample.words for sample in samples]),
        np.concatenate([sample.words_of_node for sample in samples]),
        side_by_side([sample.edges for sample in samples], nodes),
        np.concatenate([sample.ask + offset for sample, offset in zip(samples, offsets, strict=True)]),
        np.concatenate([sample.names for sample in samples]),
    )


def collate(samples: Sequence[Sample]) -> Feeds:
    """Return all graphs as one whose parts do not touch.

    A node's features are the set of its words; as ids end to end they are a twentieth of the 0/1 matrix.

    Returns:
        ``features`` ``(features,)``, ``node_of_feature`` ``(features,)``, ``features_of_node`` ``(nodes,)``
        and ``edges`` ``(2, edges)``, or ``(3, edges)`` by distance, all int64.
    """
    whole = _merge(samples)
    return {
        "features": whole.words,
        "node_of_feature": np.repeat(np.arange(len(whole.names)), whole.words_of_node),
        "features_of_node": whole.words_of_node,
        "edges": whole.edges,
    }


def decode(outputs: Outputs, samples: Sequence[Sample], assets: Assets) -> list[Prediction]:
    """Return each sample's asked rows of ``scores`` ``(nodes, classes)``, with incoming attention if asked for."""
    predictions: list[Prediction] = []
    node = edge = 0
    for sample in samples:
        scores = outputs["scores"][node + sample.ask]  # (A, K)
        winners = scores.argmax(axis=1).tolist()
        prediction: Prediction = {
            "labels": [assets.classes[winner] for winner in winners],
            "class_ids": winners,
            "scores": scores,
        }
        if "attention" in outputs:
            into = np.flatnonzero(np.isin(sample.edges[1], sample.ask))
            prediction["attention"] = {
                "edges": sample.names[sample.edges[:2, into]].T,
                "weights": np.ascontiguousarray(outputs["attention"][edge + into].T),
            }
        predictions.append(prediction)
        node += len(sample.names)
        edge += sample.edges.shape[1]
    return predictions


def cost(sample: Sample) -> int:
    """Nodes and edges."""
    return len(sample.names) + len(sample.edges[1])
