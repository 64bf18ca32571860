"""Edges in one canonical order, graphs side by side, and what part an answer depends on. numpy only.

Everywhere edges are ``(2, E)`` int64, sources over targets: both directions of every link and one self-loop a
node, each once, sorted by target and then by source. In this order a node sums up its neighbours, so the same
graph gives the same bytes however its links were written down. A third row says over how many hops, where a model
attends by distance.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.card import Feeds

Ints = NDArray[np.int64]


class Neighbours(NamedTuple):
    """Edges by target: node ``i`` hears ``sources[starts[i] : starts[i + 1]]``, ascending."""

    starts: Ints
    sources: Ints


def canonical(links: Sequence[Sequence[int]] | Ints, nodes: int) -> Ints:
    """Return the edges of undirected links ``(L, 2)`` between ``nodes`` nodes.

    Self-links, repeated links and links given in both directions change nothing.

    Returns:
        ``(2, E)``, with ``nodes <= E <= nodes + 2 L``.
    """
    pairs = np.asarray(links, np.int64).reshape(-1, 2)
    left, right = pairs[:, 0], pairs[:, 1]
    loops = np.arange(nodes, dtype=np.int64) * (nodes + 1)
    return _sorted(np.concatenate([left * nodes + right, right * nodes + left, loops]), nodes)


def _sorted(codes: Ints, nodes: int) -> Ints:
    """Edges of codes, ``target * nodes + source``, in order and each once; sorts ``codes``."""
    codes.sort()
    is_new = np.empty(len(codes), np.bool_)
    is_new[:1] = True
    np.not_equal(codes[1:], codes[:-1], out=is_new[1:])
    codes = codes[is_new]  # ``numpy.unique`` makes it 21 instead of 15 µs for a molecule
    edges = np.empty((2, len(codes)), np.int64)
    np.divmod(codes, nodes, out=(edges[1], edges[0]))
    return edges


def by_target(edges: Ints, nodes: int) -> Neighbours:
    """Canonical edges ``(2, E)`` as lists of sources per target."""
    counts = np.bincount(edges[1], minlength=nodes)
    return Neighbours(np.concatenate([[0], np.cumsum(counts)]), edges[0])


def take(starts: Ints, members: Ints, rows: Ints) -> tuple[Ints, Ints]:
    """Return some rows of a table of lists: their members end to end ``(M,)``, and lengths ``(len(rows),)``."""
    lengths = starts[rows + 1] - starts[rows]
    shifts = np.repeat(starts[rows] - np.cumsum(lengths) + lengths, lengths)
    return members[np.arange(lengths.sum()) + shifts], lengths


def surroundings(neighbours: Neighbours, seeds: Ints, hops: int) -> tuple[Ints, Ints]:
    """Return all that ``hops`` rounds of attention at the seeds can depend on.

    A node within ``hops - 1`` of a seed keeps all its incoming edges, in their order: the answer at the seeds
    has the bits of the whole graph's. The outermost nodes only lend their features and keep the self-loop.

    Args:
        neighbours: The whole graph.
        seeds: Node ids, in any order.
        hops: Rounds of attention, 0 or more.

    Returns:
        Node ids ``(N,)``, ascending, and the edges ``(2, E)`` between them, numbered within ``0 .. N - 1``.
    """
    nodes = np.unique(seeds)
    inner = nodes[:0]
    for _ in range(hops):
        inner = nodes
        nodes = np.unique(take(*neighbours, inner)[0])  # self-loops keep ``inner`` inside
    sources, lengths = take(*neighbours, inner)
    rim = np.setdiff1d(nodes, inner, assume_unique=True)
    targets = np.concatenate([np.repeat(inner, lengths), rim])
    sources = np.concatenate([sources, rim])
    codes = np.searchsorted(nodes, targets) * len(nodes) + np.searchsorted(nodes, sources)
    return nodes, _sorted(codes, len(nodes))


def count_walks(edges: Ints) -> int:
    """Return how many pairs ``by_distance`` has to sort: walks of two edges, of canonical ones ``(2, E)``."""
    return int((np.bincount(edges[1]) ** 2).sum())


def by_distance(edges: Ints, nodes: int, hops: int) -> Ints:
    """Return what a node hears within some hops, and over how many.

    Args:
        edges: Canonical, ``(2, E)``.
        nodes: How many.
        hops: 1 or 2.

    Returns:
        The same edges for 1. For 2 also an edge from each node exactly two links apart, and a third row: the hop,
        1 (links and self-loops) or 2; ``(3, E)``, in canonical order.
    """
    if hops == 1:
        return edges
    sources, lengths = take(*by_target(edges, nodes), edges[0])
    # Self-loops are edges, so walks of two edges lead to everything within two hops.
    within = _sorted(np.repeat(edges[1], lengths) * nodes + sources, nodes)
    is_far = ~np.isin(within[1] * nodes + within[0], edges[1] * nodes + edges[0])
    return np.concatenate([within, [1 + is_far]])


def side_by_side(edges: Sequence[Ints], nodes: Sequence[int]) -> Ints:
    """Return the edges of several graphs as those of one with all their nodes in order; none joins two of them."""
    offsets = np.cumsum([0, *nodes[:-1]])
    shifts = np.zeros((len(edges), len(edges[0]), 1), np.int64)
    shifts[:, :2, 0] = offsets[:, None]  # of both ends, not of the hop
    return np.concatenate([part + shift for part, shift in zip(edges, shifts, strict=True)], axis=1)


def repair_padding(feeds: Feeds, sizes: Mapping[str, int], wanted: Mapping[str, int]) -> None:
    """Give filled-in features and edges to the filled-in nodes in turn, and these to the last graph, filled in too.

    One node with all of them would be where every atomic sum of a GPU waits for the one before.
    """
    features, edges, nodes = sizes["features"], sizes["edges"], sizes["nodes"]
    spare = wanted["nodes"] - nodes
    feeds["node_of_feature"][features:] = nodes + np.arange(wanted["features"] - features) % spare
    feeds["edges"][:2, edges:] = nodes + np.arange(wanted["edges"] - edges) % spare
    feeds["edges"][2:, edges:] = 1
    if "graphs" in sizes:
        feeds["graph_of_node"][nodes:] = wanted["graphs"] - 1
        feeds["nodes_of_graph"][sizes["graphs"] :] = 1
