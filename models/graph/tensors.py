"""Graphs as raw tensors. numpy only.

A net sums what a node hears in the order of the edges, so only edges in canonical order are taken: the same graph then
has the same bits as an answer, whatever it is batched with. A node that hears nobody has no attention to share out, so
each must hear itself.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from models.card import Array
from models.graph import citation_codec, citation_schema, molecule_codec, molecule_schema
from models.graph.edges import Ints
from models.tensors import Steps, Tensors, demand, demand_each

EDGES, WORDS = "edges", "features_of_node"


def _check_edges(edges: Ints, nodes: int, hops: int) -> None:
    """Let canonical edges ``(2, E)``, or by distance ``(3, E)``, pass."""
    most = nodes + 2 * citation_schema.MAX_EDGES if hops == 1 else citation_schema.MAX_WALKS
    demand(edges.shape[1] <= most, EDGES, f"expected at most {most} edges, found {edges.shape[1]}")
    low, high = np.zeros((len(edges), 1), np.int64), np.full((len(edges), 1), nodes)
    low[2:], high[2:] = 1, hops + 1
    reason = f"expected node numbers below {nodes}, and hops from 1 to {hops}"
    demand_each((edges >= low) & (edges < high), edges, EDGES, reason)
    codes = edges[1] * nodes + edges[0]
    demand((np.diff(codes) > 0).all(), EDGES, "expected each once, by target and then by source")
    is_loop = edges[0] == edges[1]
    demand(is_loop.sum() == nodes, EDGES, "expected an edge from each node to itself")
    demand((edges[2:, is_loop] == 1).all(), EDGES, "expected one hop from a node to itself")


def _repeats(counts: Ints, found: Ints) -> bool:
    """Return whether ``found`` says of each member whose it is, where each owner has so many, end to end."""
    return int(counts.sum()) == len(found) and np.array_equal(np.repeat(np.arange(len(counts)), counts), found)


def papers(feeds: Mapping[str, Array], assets: citation_schema.Assets) -> list[citation_codec.Sample]:
    """Return the one graph in a session's inputs, to label every node of.

    Raises:
        InvalidRequest: Unless ``citation_codec.collate`` could have made them.
    """
    words, counts, edges = feeds["features"], feeds[WORDS], feeds[EDGES]
    nodes = len(counts)
    demand(0 < nodes <= citation_schema.MAX_NODES, WORDS, f"expected 1 to {citation_schema.MAX_NODES} nodes")
    _check_counts(counts, feeds["node_of_feature"], least=0, most=citation_schema.MAX_WORDS)
    demand_each((words >= 0) & (words < assets.words), words, "features", f"expected word ids below {assets.words}")
    is_next = (np.diff(words) > 0) | (np.diff(feeds["node_of_feature"]) > 0)
    demand(is_next.all(), "features", "expected the words of each node ascending, each once")
    _check_edges(edges, nodes, assets.hops)
    every = np.arange(nodes)
    return [citation_codec.Sample(words, counts, edges, every, every)]


def _check_counts(counts: Ints, owners: Ints, *, least: int, most: int) -> None:
    demand_each((counts >= least) & (counts <= most), counts, WORDS, f"expected {least} to {most} features of a node")
    demand(_repeats(counts, owners), "node_of_feature", f"expected each node's number as often as {WORDS} says")


def molecules(feeds: Mapping[str, Array], assets: molecule_schema.Assets) -> list[molecule_codec.Sample]:
    """Return the molecules in a session's inputs.

    Raises:
        InvalidRequest: Unless ``molecule_codec.collate`` could have made them.
    """
    atoms, graph_of_node, edges = feeds["nodes_of_graph"], feeds["graph_of_node"], feeds[EDGES]
    most = molecule_schema.MAX_ATOMS
    demand(len(atoms) > 0, "nodes_of_graph", "expected at least one molecule")
    demand_each((atoms > 0) & (atoms <= most), atoms, "nodes_of_graph", f"expected 1 to {most} atoms")
    demand(_repeats(atoms, graph_of_node), "graph_of_node", "expected each molecule's number, as often as it has atoms")
    _check_counts(feeds[WORDS], feeds["node_of_feature"], least=2, most=2)
    features = feeds["features"].reshape(-1, 2)
    symbols = len(assets.atoms)
    bounds = np.array([[0, symbols], [symbols, symbols + assets.degrees]])
    is_good = (features >= bounds[:, 0]) & (features < bounds[:, 1])
    reason = f"expected an id below {symbols} and one from there to below {bounds[1, 1]} for each atom"
    demand_each(is_good.ravel(), features.ravel(), "features", reason)
    _check_edges(edges, len(graph_of_node), assets.hops)
    owners = graph_of_node[edges[1]]
    demand((graph_of_node[edges[0]] == owners).all(), EDGES, "expected edges within one molecule")
    return _apart(features, edges, atoms, np.bincount(owners, minlength=len(atoms)))


def _apart(features: Ints, edges: Ints, atoms: Ints, edges_of_graph: NDArray[np.intp]) -> list[molecule_codec.Sample]:
    starts = atoms.cumsum() - atoms
    edges = edges.copy()
    edges[:2] -= np.repeat(starts, edges_of_graph)
    parts = np.split(edges, edges_of_graph.cumsum()[:-1], axis=1)
    return [
        molecule_codec.Sample(features[start : start + count], part)
        for start, count, part in zip(starts.tolist(), atoms.tolist(), parts, strict=True)
    ]


def _steps_of_papers(sample: citation_codec.Sample) -> Steps:
    return {"nodes": len(sample.names), EDGES: sample.edges.shape[1]}


def _asked(sample: citation_codec.Sample) -> Mapping[str, Ints]:
    """Return the nodes that are to be labelled, and the edges into them."""
    return {"nodes": sample.ask, EDGES: np.flatnonzero(np.isin(sample.edges[1], sample.ask))}


def _steps_of_molecules(sample: molecule_codec.Sample) -> Steps:
    return {"graphs": 1, EDGES: sample.edges.shape[1]}


OF_PAPERS = Tensors(samples=papers, steps=_steps_of_papers, asked=_asked, classes=lambda assets: assets.classes)
OF_MOLECULES = Tensors(samples=molecules, steps=_steps_of_molecules, classes=lambda assets: assets.classes)
