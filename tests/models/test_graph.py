"""The graph family: papers and molecules, canonical edges, graphs side by side, what is refused."""

from typing import Any

import msgspec
import numpy as np
import pytest

from models.card import AnyCard, Feeds
from models.errors import Fault
from models.graph import LABEL_GRAPH, LABEL_NODES, citation_codec, molecule_codec
from models.graph.citation_schema import Assets, Instance, NewPaper
from models.graph.edges import Ints, by_target, canonical, surroundings
from models.graph.molecule_schema import Assets as MoleculeAssets
from models.graph.molecule_schema import Instance as Molecule

PATH = [(0, 1), (1, 2), (2, 3), (3, 4)]
PAPERS = [[0], [1, 2], [3], [2, 4], [5]]
RESIDENT = Assets(classes=["a", "b", "c"], words=6, heads=[2, 1], papers=PAPERS, links=PATH)
HOMELESS = Assets(classes=["a", "b"], words=6, heads=[2, 1])
CHEMISTRY = MoleculeAssets(classes=["no", "yes"], atoms=["C", "N", "O"], heads=[2, 2], degrees=4)
CARDS: list[tuple[AnyCard, Any]] = [
    (LABEL_NODES, RESIDENT),
    (LABEL_NODES, HOMELESS),
    (LABEL_GRAPH, CHEMISTRY),
]
NITROGEN_DIOXIDE = Molecule(atoms=["N", "O", "O"], bonds=[(0, 1), (0, 2)])


def components(feeds: Feeds) -> Ints:
    """The smallest node each node is joined with by edges."""
    sources, targets = feeds["edges"]
    labels = np.arange(len(feeds["features_of_node"]))
    for _ in labels:
        np.minimum.at(labels, targets, labels[sources])
    return labels


def test_canonical_by_heart() -> None:
    """Both directions and a self-loop each, once, by target and then by source."""
    found = canonical([(2, 0), (0, 2), (1, 1), (2, 0)], 3)
    assert found.tolist() == [[0, 2, 1, 0, 2], [0, 0, 1, 2, 2]]
    assert canonical([], 1).tolist() == [[0], [0]]


@pytest.mark.parametrize("seed", range(5))
def test_links_in_any_order(seed: int) -> None:
    """Permuted, reversed and repeated links and words give the same bytes."""
    rng = np.random.default_rng(seed)
    words = [rng.integers(0, 6, 4).tolist() for _ in range(9)]
    links = rng.integers(0, 9, (14, 2))
    other = np.concatenate([links, links[:3], [[4, 4]]])[rng.permutation(18)][:, ::-1]
    feeds = [
        citation_codec.collate([citation_codec.encode(Instance(words=w, edges=e.tolist()), HOMELESS)])
        for w, e in ((words, links), ([bag[::-1] + bag[:2] for bag in words], other))
    ]
    assert feeds[0].keys() == feeds[1].keys()
    assert all(feeds[0][name].tobytes() == feeds[1][name].tobytes() for name in feeds[0])


def test_surroundings_by_heart() -> None:
    """Around an end of a path: inner nodes keep their edges, the outermost only its self-loop."""
    neighbours = by_target(canonical(PATH, 5), 5)
    nodes, edges = surroundings(neighbours, np.array([0]), 2)
    assert nodes.tolist() == [0, 1, 2]
    assert edges.T.tolist() == [[0, 0], [1, 0], [0, 1], [1, 1], [2, 1], [2, 2]]
    assert surroundings(neighbours, np.array([3, 0]), 0)[0].tolist() == [0, 3]


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_surroundings_keep_order(hops: int) -> None:
    """Every node within one hop less hears the same nodes in the same order as in the whole graph."""
    rng = np.random.default_rng(hops)
    edges = canonical(rng.integers(0, 60, (90, 2)), 60)
    neighbours = by_target(edges, 60)
    for seed in range(60):
        nodes, part = surroundings(neighbours, np.array([seed]), hops)
        inner = surroundings(neighbours, np.array([seed]), hops - 1)[0]
        for node in inner:
            here = nodes[part[0, part[1] == np.searchsorted(nodes, node)]]
            assert here.tolist() == edges[0, edges[1] == node].tolist()


def test_new_paper_is_linked_both_ways() -> None:
    """A new paper comes last, hears whom it cites, and they hear it after all others."""
    sample = citation_codec.encode(Instance(new=[NewPaper(words=[5, 5, 0], cites=[4, 0, 4])]), RESIDENT)
    assert sample.names.tolist() == [0, 1, 3, 4, -1]
    assert sample.ask.tolist() == [4]
    links = sample.names[sample.edges].T.tolist()
    whole = canonical([*PATH, (0, 5), (4, 5)], 6)
    wanted = [[s, t] for s, t in whole.T.tolist() if t in (0, 4, 5)] + [[1, 1], [3, 3]]
    assert sorted([[5 if end == -1 else end for end in link] for link in links]) == sorted(wanted)
    assert sample.edges.tolist() == sample.edges[:, np.lexsort(sample.edges)].tolist()
    assert sample.words[-2:].tolist() == [0, 5]


def test_molecule_by_heart() -> None:
    """Each atom has its symbol and its count of bonds; five bonds count as three."""
    sample = molecule_codec.encode(NITROGEN_DIOXIDE, CHEMISTRY)
    assert sample.features.tolist() == [[1, 5], [2, 4], [2, 4]]
    star = Molecule(atoms=["C"] * 6, bonds=[(0, atom) for atom in range(1, 6)])
    assert molecule_codec.encode(star, CHEMISTRY).features[0].tolist() == [0, 6]
    feeds = molecule_codec.collate([sample, sample])
    assert feeds["graph_of_node"].tolist() == [0, 0, 0, 1, 1, 1]
    assert feeds["nodes_of_graph"].tolist() == [3, 3]


@pytest.mark.parametrize(("card", "assets"), CARDS)
def test_no_edge_joins_two_requests(card: AnyCard, assets: Any) -> None:
    """In company no node is joined with a node of another request; one planted edge is noticed."""
    rng = np.random.default_rng(0)
    samples = [card.encode(card.random_request(rng, assets), assets) for _ in range(30)]
    feeds = card.collate(samples)
    sizes = [len(card.collate([sample])["features_of_node"]) for sample in samples]
    owner = np.repeat(np.arange(30), sizes)
    assert (owner[components(feeds)] == owner).all()
    sources = feeds["edges"][0].copy()
    sources[-1] = 0
    planted = feeds | {"edges": np.stack([sources, feeds["edges"][1]])}
    assert (owner[components(planted)] != owner).any()


@pytest.mark.parametrize(("card", "assets"), CARDS)
def test_random_requests(card: AnyCard, assets: Any) -> None:
    """Fifty random requests and the example survive JSON, have no faults, and become what the card says."""
    rng = np.random.default_rng(1)
    requests = [card.example(assets), *(card.random_request(rng, assets) for _ in range(50))]
    for request in requests:
        again = msgspec.json.decode(msgspec.json.encode(request), type=card.instance)
        assert again == request
        assert list(card.validate(request, assets)) == []
        sample = card.encode(request, assets)
        feeds = card.collate([sample])
        assert list(feeds) == [spec.name for spec in card.inputs]
        sizes: dict[str, int] = dict(assets.sizes)
        for spec in card.inputs:
            assert feeds[spec.name].dtype == spec.dtype
            shape = [sizes.setdefault(axis, n) for axis, n in zip(spec.axes, feeds[spec.name].shape, strict=True)]
            assert shape == list(feeds[spec.name].shape)
        assert card.cost(sample) == sizes["nodes"] + sizes["edges"]


ONE_KIND = "expected exactly one of 'words', 'new' and 'node_ids'"


@pytest.mark.parametrize(
    ("request_", "position", "reason"),
    [
        ({}, (), ONE_KIND),
        ({"edges": [[0, 1]]}, (), ONE_KIND),
        ({"words": [[0]], "node_ids": [0]}, (), ONE_KIND),
        ({"node_ids": [0], "edges": []}, ("edges",), "expected only with 'words', found with 'node_ids'"),
        ({"words": [[0], [1, 6]]}, ("words", 1, 1), "expected word ids below 6, found 6"),
        (
            {"words": [[0], []], "edges": [[0, 1], [1, 2]]},
            ("edges", 1),
            "expected node numbers below 2, found 2",
        ),
        ({"node_ids": [4, 5]}, ("node_ids", 1), "expected node ids below 5, found 5"),
        ({"new": [{"words": [9]}]}, ("new", 0, "words", 0), "expected word ids below 6, found 9"),
        (
            {"new": [{"words": [], "cites": [5]}]},
            ("new", 0, "cites", 0),
            "expected node ids below 5, found 5",
        ),
        ({"atoms": ["C", "Xx"]}, ("atoms", 1), "expected one of C, N, O"),
        ({"atoms": ["C"], "bonds": [[0, 1]]}, ("bonds", 0), "expected node numbers below 1, found 1"),
    ],
)
def test_faults(request_: dict[str, Any], position: tuple[str | int, ...], reason: str) -> None:
    """Each senseless value is one fault, at its place, with what was expected and found."""
    card, assets = CARDS[2] if "atoms" in request_ else CARDS[0]
    instance = msgspec.convert(request_, card.instance)
    assert list(card.validate(instance, assets)) == [Fault(position, reason)]


def test_faults_without_resident_graph() -> None:
    """A model without a resident graph says so."""
    [fault] = LABEL_NODES.validate(Instance(node_ids=[0]), HOMELESS)
    assert fault == Fault(("node_ids",), "this model has no resident graph; send 'words' and 'edges'")


def test_faults_are_eight_at_most() -> None:
    """A request full of faults is answered with the first eight."""
    faults = list(LABEL_NODES.validate(Instance(words=[[7] * 100] * 100), RESIDENT))
    assert [fault.loc for fault in faults] == [("words", 0, number) for number in range(8)]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"node_ids": [-1]}', "Expected `int` >= 0 - at `$.node_ids[0]`"),
        ('{"node_ids": [1.0]}', "Expected `int`, got `float` - at `$.node_ids[0]`"),
        ('{"node_ids": [true]}', "Expected `int`, got `bool` - at `$.node_ids[0]`"),
        ('{"node_ids": ["0"]}', "Expected `int`, got `str` - at `$.node_ids[0]`"),
        ('{"node_ids": [2147483648]}', "Expected `int` <= 2147483647 - at `$.node_ids[0]`"),
        ('{"node_ids": []}', "Expected `array` of length >= 1 - at `$.node_ids`"),
        ('{"words": []}', "Expected `array` of length >= 1 - at `$.words`"),
        ('{"words": [[0]], "edges": [[0, 0, 0]]}', "Expected `array` of length 2 - at `$.edges[0]`"),
        ('{"words": [[0]], "edges": [[0]]}', "Expected `array` of length 2 - at `$.edges[0]`"),
        ('{"words": [[0]], "edges": [[0, -1]]}', "Expected `int` >= 0 - at `$.edges[0][1]`"),
        ('{"words": [[0]], "nodes": 1}', "Object contains unknown field `nodes`"),
    ],
)
def test_numbers_are_whole_and_bounded(body: str, message: str) -> None:
    """Numbers that ONNX Runtime would wrap or Python would coerce never get as far as ``validate``."""
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(body, type=Instance)
    assert str(caught.value) == message


def test_accepted_oddities() -> None:
    """No links, no words, self-links, repeats and isolated nodes are fine."""
    for body in (
        '{"words": [[]]}',
        '{"words": [[0, 0], []], "edges": [[0, 0], [0, 0]]}',
        '{"node_ids": [1, 1]}',
    ):
        instance = msgspec.json.decode(body, type=Instance)
        assert list(LABEL_NODES.validate(instance, RESIDENT)) == []
    lonely = citation_codec.collate([citation_codec.encode(Instance(words=[[]]), RESIDENT)])
    assert {name: feed.shape for name, feed in lonely.items()} == {
        "features": (0,), "node_of_feature": (0,), "features_of_node": (1,), "edges": (2, 1),
    }  # fmt: skip


def test_decode_asked_nodes() -> None:
    """Answers come in the order asked, repeats included, with the attention on the edges into their nodes."""
    requests = [Instance(node_ids=[3, 0, 3]), Instance(new=[NewPaper(words=[1], cites=[2])] * 2)]
    samples = [citation_codec.encode(request, RESIDENT) for request in requests]
    feeds = citation_codec.collate(samples)
    nodes, edges = len(feeds["features_of_node"]), feeds["edges"].shape[1]
    outputs = {
        "scores": np.linspace(0, 1, nodes * 3, dtype=np.float32).reshape(nodes, 3),
        "attention": np.arange(edges * 3, dtype=np.float32).reshape(edges, 3),
    }
    first, second = citation_codec.decode(outputs, samples, RESIDENT)
    assert first["scores"].tolist() == outputs["scores"][[3, 0, 3]].tolist()
    assert first["labels"] == ["c", "c", "c"]
    assert first["attention"]["edges"].tolist() == [[0, 0], [1, 0], [2, 3], [3, 3], [4, 3]]
    assert second["attention"]["edges"].tolist() == [[2, -1], [-1, -1], [2, -2], [-2, -2]]
    into = np.isin(feeds["edges"][1], samples[0].ask)[: samples[0].edges.shape[1]]
    assert first["attention"]["weights"].T.tolist() == outputs["attention"][: len(into)][into].tolist()


def test_decode_molecules() -> None:
    """Every molecule gets its own row and its own edges."""
    requests = [NITROGEN_DIOXIDE, Molecule(atoms=["C"])]
    samples = [molecule_codec.encode(request, CHEMISTRY) for request in requests]
    outputs = {
        "scores": np.array([[0.25, 0.75], [1, 0]], np.float32),
        "attention": np.arange(32, dtype=np.float32).reshape(8, 4),
    }
    first, second = molecule_codec.decode(outputs, samples, CHEMISTRY)
    assert (first["label"], first["class_id"], first["score"]) == ("yes", 1, 0.75)
    assert second["attention"]["edges"].tolist() == [[0, 0]]
    assert second["attention"]["weights"].tolist() == [[28], [29], [30], [31]]
    assert first["attention"]["weights"].shape == (4, 7)
