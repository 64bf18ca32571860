"""What is wrong with a graph, and what only looks wrong."""

import json
from typing import Any

import numpy as np
import pytest

AT = ["instances", 0]
EDGE = [*AT, "edges", 0]
ONE_OF = "expected exactly one of 'words', 'new' and 'node_ids'"
TWO = [[1], [2]]


def graph(**instance: Any) -> bytes:
    return json.dumps({"instances": [instance]}).encode()


def edge(*ends: Any) -> bytes:
    """Two papers and one edge."""
    return graph(words=TWO, edges=[list(ends)])


def below(bound: int, found: int, what: str = "node numbers") -> str:
    return f"expected {what} below {bound}, found {found}"


CITATION: dict[str, tuple[bytes, list[Any], str]] = {
    "nothing": (graph(), AT, ONE_OF),
    "two kinds": (graph(words=TWO, node_ids=[1]), AT, ONE_OF),
    "edges alone": (graph(edges=[[0, 1]]), AT, ONE_OF),
    "edges of resident nodes": (graph(node_ids=[1], edges=[]), [*AT, "edges"],
                                "expected only with 'words', found with 'node_ids'"),
    "no nodes": (graph(words=[]), [*AT, "words"], "expected array of length >= 1"),
    "4,097 nodes": (graph(words=[[]] * 4097), [*AT, "words"], "expected array of length <= 4096"),
    "index n": (edge(0, 2), EDGE, below(2, 2)),
    "index -1": (edge(0, -1), [*EDGE, 1], "expected int >= 0"),
    "index 2^31 - 1": (edge(0, 2**31 - 1), EDGE, below(2, 2**31 - 1)),
    "index 2^31": (edge(0, 2**31), [*EDGE, 1], "expected int <= 2147483647"),
    "index 2^63 - 1": (edge(0, 2**63 - 1), [*EDGE, 1], "expected int <= 2147483647"),
    "index 2^64": (edge(2**64, 0), [*EDGE, 0], "expected int <= 2147483647"),
    "index 10^400": (edge(0, 10**400), [*EDGE, 1], "expected int <= 2147483647"),
    "index 1.0": (edge(0, 1.0), [*EDGE, 1], "expected int, got float"),
    "index true": (edge(0, True), [*EDGE, 1], "expected int, got bool"),
    "index text": (edge(0, "0"), [*EDGE, 1], "expected int, got str"),
    "index null": (edge(0, None), [*EDGE, 1], "expected int, got null"),
    "three ends": (edge(0, 1, 1), EDGE, "expected array of length 2"),
    "one end": (edge(0), EDGE, "expected array of length 2"),
    "odd list": (graph(words=TWO, edges=[[0, 1], [0]]), [*AT, "edges", 1], "expected array of length 2"),
    "flat list": (graph(words=TWO, edges=[0, 1]), EDGE, "expected array, got int"),
    "two rows of ends": (graph(words=TWO * 2, edges=[[0, 1, 2], [1, 2, 3]]), EDGE, "expected array of length 2"),
    "65,537 edges": (graph(words=TWO, edges=[[0, 1]] * 65_537), [*AT, "edges"], "expected array of length <= 65536"),
    "10^6 edges": (graph(words=TWO, edges=[[0, 1]] * 10**6), AT,
                   "expected at most 262144 values, found 2000001"),
    "word beyond the model's": (graph(words=[[1433]]), [*AT, "words", 0, 0], below(1433, 1433, "word ids")),
    "word -1": (graph(words=[[-1]]), [*AT, "words", 0, 0], "expected int >= 0"),
    "word 0.5": (graph(words=[[0.5]]), [*AT, "words", 0, 0], "expected int, got float"),
    "words as numbers": (graph(words=[1, 2]), [*AT, "words", 0], "expected array, got int"),
    "no resident nodes": (graph(node_ids=[]), [*AT, "node_ids"], "expected array of length >= 1"),
    "resident node 2708": (graph(node_ids=[0, 2708]), [*AT, "node_ids", 1], below(2708, 2708, "node ids")),
    "citing node -1": (graph(new=[{"words": [], "cites": [-1]}]), [*AT, "new", 0, "cites", 0], "expected int >= 0"),
    "33 new papers": (graph(new=[{"words": []}] * 33), [*AT, "new"], "expected array of length <= 32"),
    "new paper with features": (graph(new=[{"words": [], "x": 1}]), [*AT, "new", 0], "unknown field"),
    "2,049 nodes explained": (json.dumps({"instances": [{"words": [[1]] * 2049}], "explain": True}).encode(), AT,
                              "expected at most 4096 nodes + edges to explain, found 4098"),
}  # fmt: skip
MOLECULE: dict[str, tuple[bytes, list[Any], str]] = {
    "no atoms": (graph(atoms=[]), [*AT, "atoms"], "expected array of length >= 1"),
    "257 atoms": (graph(atoms=["C"] * 257), [*AT, "atoms"], "expected array of length <= 256"),
    "unknown atom": (graph(atoms=["Xx"]), [*AT, "atoms", 0], "expected one of C, N, O, F, I, Cl, Br"),
    "lower case": (graph(atoms=["c"]), [*AT, "atoms", 0], "expected one of C, N, O, F, I, Cl, Br"),
    "atomic number": (graph(atoms=[6]), [*AT, "atoms", 0], "expected str, got int"),
    "a formula": (graph(atoms="CCO"), [*AT, "atoms"], "expected array, got str"),
    "long symbol": (graph(atoms=["C" * 17]), [*AT, "atoms", 0], "expected str of length <= 16"),
    "count mismatch": (graph(atoms=["C"], bonds=[[0, 1]]), [*AT, "bonds", 0], below(1, 1)),
    "1,025 bonds": (graph(atoms=["C"], bonds=[[0, 0]] * 1025), [*AT, "bonds"], "expected array of length <= 1024"),
    "bond type": (graph(atoms=["C", "C"], bonds=[[0, 1, 2]]), [*AT, "bonds", 0], "expected array of length 2"),
}


@pytest.mark.parametrize(("model", "name"), [("citation", n) for n in CITATION] + [("molecule", n) for n in MOLECULE])
def test_refused(model: str, name: str, refuse: Any) -> None:
    """Each is refused at its place."""
    body, loc, reason = (CITATION if model == "citation" else MOLECULE)[name]
    assert refuse(model, body, 422, "invalid_request").json["errors"] == [{"loc": loc, "reason": reason}]


@pytest.mark.parametrize("number", ["NaN", "Infinity"])
def test_no_number(number: str, refuse: Any) -> None:
    """A word that is no number is broken syntax."""
    refuse("citation", f'{{"instances":[{{"words":[[{number}]]}}]}}'.encode(), 400, "malformed_request")


RING = [[0, 1], [1, 2], [2, 3], [3, 0]]
# Each pair is one graph, written down in two ways.
SAME: dict[str, tuple[list[list[int]], list[list[int]]]] = {
    "permuted": (RING, RING[::-1]),
    "reversed": (RING, [pair[::-1] for pair in RING]),
    "duplicates": (RING, RING * 3),
    "self-loops": (RING, [*RING, [0, 0], [3, 3], [3, 3]]),
    "self-loops alone": ([], [[1, 1]]),
}


@pytest.mark.parametrize("model", ["citation", "molecule"])
@pytest.mark.parametrize("name", SAME)
def test_one_graph_has_one_answer(name: str, model: str, way: Any) -> None:
    """However its links are written down, a graph has the same bytes for an answer."""
    nodes, edges = ("words", "edges") if model == "citation" else ("atoms", "bonds")
    labels: list[Any] = [[1, 2], [3], [], [4]] if model == "citation" else ["C", "N", "O", "C"]
    one, other = ({nodes: labels, edges: form} for form in SAME[name])
    first = way.ask(model, graph(**one))
    assert first.status == 200
    assert way.ask(model, graph(**other)).body == first.body


def test_isolated_nodes_are_alone(way: Any) -> None:
    """What is not linked does not matter: a node alone, and beside another graph."""
    alone = way.ask("citation", graph(words=[[1, 2]])).prediction["scores"][0]
    beside = way.ask("citation", graph(words=[[1, 2], [3], [4]], edges=[[1, 2]])).prediction["scores"][0]
    assert beside == alone


LARGE = {
    "hub of the highest degree": {"words": [[1]] * 4096, "edges": [[0, node] for node in range(1, 4096)]},
    "complete graph": {"words": [[1]] * 362, "edges": [[a, b] for a in range(362) for b in range(a)]},
    "most links": {"words": [[1, 2]] * 4096,
                   "edges": np.random.default_rng(0).integers(0, 4096, (65_536, 2)).tolist()},
    "most words": {"words": [list(range(0, 1433, 23))] * 4096},
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_largest(name: str, way: Any) -> None:
    """The largest graphs are answered in bounded time, with probabilities."""
    before = way.live.seconds
    scores = np.asarray(way.ask("citation", graph(**LARGE[name])).prediction["scores"])
    assert way.live.seconds - before < 2
    assert scores.shape[0] == len(LARGE[name]["words"])
    assert np.allclose(scores.sum(axis=1), 1, atol=1e-5)


def test_largest_molecule(way: Any) -> None:
    """A molecule of the most atoms and bonds, all of them at one atom or anywhere, has probabilities."""
    for bonds in ([[0, atom] for atom in range(256)], np.random.default_rng(0).integers(0, 256, (1024, 2)).tolist()):
        scores = way.ask("molecule", graph(atoms=["C"] * 256, bonds=bonds)).prediction["scores"]
        assert abs(sum(scores) - 1) < 1e-5
