"""The graph attention net against a slow one, and its invariances."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.card import AnyCard, Feeds
from models.graph import LABEL_GRAPH, LABEL_NODES, citation_codec
from models.graph.citation_schema import Assets, Instance, NewPaper, random_links
from models.graph.molecule_schema import Assets as MoleculeAssets
from models.graph.molecule_schema import Instance as Molecule
from models.graph.train.net import AttentionConfig, GraphAttention, GraphAttentionNet, elu
from models.training.loop import seed_everything

WORDS = 12
CONFIG = AttentionConfig(heads=(3, 2), units=(4,))
ASSETS = Assets(classes=["a", "b", "c"], words=WORDS, heads=[3, 2])
CHEMISTRY = MoleculeAssets(classes=["no", "yes"], atoms=["C", "N", "O"], heads=[2, 2], degrees=4)
CHEMICAL_CONFIG = AttentionConfig(heads=(2, 2), units=(3, 5), is_label_graph=True, readout=6)
Dense = NDArray[np.float64]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads that wait for each other on a busy machine took twenty times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def node_net() -> GraphAttentionNet:
    """Three heads of four units, then two heads of three classes averaged."""
    return lively(GraphAttentionNet(CONFIG, WORDS, 3))


@pytest.fixture
def graph_net() -> GraphAttentionNet:
    """Two layers of two heads and a readout."""
    return lively(GraphAttentionNet(CHEMICAL_CONFIG, 7, 2))


def lively(net: GraphAttentionNet) -> GraphAttentionNet:
    """Weights large enough for attention to be far from even."""
    seed_everything(0)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return net.eval()


def run(net: GraphAttentionNet, feeds: Feeds) -> dict[str, Any]:
    """Outputs as arrays."""
    with torch.inference_mode():
        return {name: t.numpy() for name, t in net(*map(torch.from_numpy, feeds.values())).items()}


def predict(net: GraphAttentionNet, card: AnyCard, requests: list[Any], assets: Any) -> list[dict[str, Any]]:
    """Predictions of one batch, attention included."""
    samples = [card.encode(request, assets) for request in requests]
    return card.decode(run(net, card.collate(samples)), samples, assets)


def difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Largest difference of two predictions' scores and attention weights."""
    pairs = (one["scores"], other["scores"]), (one["attention"]["weights"], other["attention"]["weights"])
    assert one["attention"]["edges"].tolist() == other["attention"]["edges"].tolist()
    return max(float(np.abs(a - b).max()) for a, b in pairs)


def slow_layer(layer: GraphAttention, x: Dense, neighbours: NDArray[np.bool_]) -> tuple[Dense, list[Dense]]:
    """Return the paper's equations 1 to 6, node by node and head by head, ``neighbours[i, j]`` for j -> i."""
    weight, source, target, bias = (
        p.detach().double().numpy() for p in (layer.weight, layer.source, layer.target, layer.bias)
    )
    outputs, attention = [], []
    for head in range(layer.heads):
        wh = x @ weight[:, head * layer.units : (head + 1) * layer.units]
        alpha = np.zeros(neighbours.shape)
        for i in range(len(x)):
            heard = np.flatnonzero(neighbours[i])
            joined = np.array([np.concatenate([wh[i], wh[j]]) for j in heard])
            e = joined @ np.concatenate([target[head], source[head]])
            powers = np.exp(np.where(e > 0, e, 0.2 * e))
            alpha[i, heard] = powers / powers.sum()
        outputs.append(alpha @ wh)
        attention.append(alpha)
    merged = np.mean(outputs, axis=0) if layer.is_averaged else np.concatenate(outputs, axis=1)
    return merged + bias, attention


def slow_net(net: GraphAttentionNet, x: Dense, links: list[tuple[int, int]]) -> tuple[Dense, list[Dense]]:
    """Channels after the last layer, and the dense attention of every head of every layer."""
    neighbours = np.eye(len(x), dtype=bool)
    for u, v in links:
        neighbours[u, v] = neighbours[v, u] = True
    attention = []
    for number, layer in enumerate(net.layers):
        assert isinstance(layer, GraphAttention)
        x = np.where(x > 0, x, np.expm1(x)) if number else x
        x, weights = slow_layer(layer, x, neighbours)
        attention += weights
    return x, attention


def softmax(x: Dense) -> Dense:
    """Along the last axis."""
    powers = np.exp(x - x.max(-1, keepdims=True))
    total: Dense = powers / powers.sum(-1, keepdims=True)
    return total


def random_graph(seed: int, nodes: int = 15) -> tuple[list[list[int]], list[tuple[int, int]]]:
    """Words of each node, and links."""
    rng = np.random.default_rng(seed)
    words = [np.flatnonzero(rng.random(WORDS) < 0.3).tolist() for _ in range(nodes)]
    return words, random_links(rng, nodes)


@pytest.mark.parametrize("seed", range(4))
def test_node_labels_against_slow_net(node_net: GraphAttentionNet, seed: int) -> None:
    """Scores and attention are those of the paper's equations written out over dense matrices."""
    words, links = random_graph(seed)
    x = np.zeros((len(words), WORDS))
    for row, bag in zip(x, words, strict=True):
        row[bag] = 1 / max(1, len(bag))
    logits, attention = slow_net(node_net, x, links)
    [found] = predict(node_net, LABEL_NODES, [Instance(words=words, edges=links)], ASSETS)
    np.testing.assert_allclose(found["scores"], softmax(logits), rtol=1e-4, atol=1e-6)
    sources, targets = found["attention"]["edges"].T
    wanted = [alpha[targets, sources] for alpha in attention]
    np.testing.assert_allclose(found["attention"]["weights"], wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_graph_label_against_slow_net(graph_net: GraphAttentionNet, seed: int) -> None:
    """The label of a molecule is that of the slow net's channels, summed and averaged over the atoms."""
    request = LABEL_GRAPH.random_request(np.random.default_rng(seed), CHEMISTRY)
    sample = LABEL_GRAPH.encode(request, CHEMISTRY)
    x = np.zeros((len(request.atoms), 7))
    for row, features in zip(x, sample.features, strict=True):
        row[features] = 0.5
    channels, _ = slow_net(graph_net, x, request.bonds)
    channels = np.where(channels > 0, channels, np.expm1(channels))
    readout = graph_net.readout
    assert readout is not None
    w1, b1, w2, b2 = (p.detach().double().numpy() for p in readout.parameters())
    hidden = np.maximum(w1 @ np.concatenate([channels.sum(0) / 10, channels.mean(0)]) + b1, 0)
    [found] = predict(graph_net, LABEL_GRAPH, [request], CHEMISTRY)
    np.testing.assert_allclose(found["scores"], softmax(w2 @ hidden + b2), rtol=1e-4, atol=1e-6)


def test_renamed_nodes(node_net: GraphAttentionNet, graph_net: GraphAttentionNet) -> None:
    """Numbering the nodes otherwise only renames the answers."""
    words, links = random_graph(7)
    order = np.random.default_rng(0).permutation(len(words))
    position = np.argsort(order)
    renamed = [(int(position[u]), int(position[v])) for u, v in links]
    requests = [Instance(words=words, edges=links), Instance(words=[words[n] for n in order], edges=renamed)]
    one, other = predict(node_net, LABEL_NODES, requests, ASSETS)
    np.testing.assert_allclose(other["scores"], one["scores"][order], atol=1e-6)
    atoms = [*"CCNOCCCOCCNCCCO"]
    molecules = [
        Molecule(atoms=atoms, bonds=links),
        Molecule(atoms=[atoms[n] for n in order], bonds=renamed),
    ]
    one, other = predict(graph_net, LABEL_GRAPH, molecules, CHEMISTRY)
    np.testing.assert_allclose(other["scores"], one["scores"], atol=1e-6)


@pytest.mark.parametrize("task", ["nodes", "graph"])
def test_company_changes_nothing(task: str, node_net: GraphAttentionNet, graph_net: GraphAttentionNet) -> None:
    """Thirty requests together are answered as each alone; with one edge planted between two, not."""
    choices: dict[str, tuple[GraphAttentionNet, AnyCard, Any]] = {
        "nodes": (node_net, LABEL_NODES, ASSETS),
        "graph": (graph_net, LABEL_GRAPH, CHEMISTRY),
    }
    net, card, assets = choices[task]
    rng = np.random.default_rng(0)
    requests = [card.random_request(rng, assets) for _ in range(30)]
    together = predict(net, card, requests, assets)
    for request, found in zip(requests, together, strict=True):
        assert difference(found, predict(net, card, [request], assets)[0]) < 1e-6
    samples = [card.encode(request, assets) for request in requests]
    feeds = card.collate(samples)
    feeds["edges"][0, 0] = len(feeds["features_of_node"]) - 1
    planted = card.decode(run(net, feeds), samples, assets)
    assert difference(planted[0], together[0]) > 1e-3


@pytest.mark.parametrize("heads", [(3,), (3, 2), (3, 2, 2)])
def test_part_of_resident_graph_is_enough(heads: tuple[int, ...]) -> None:
    """Nodes and new papers get the answers of a run over the whole resident graph, new paper included."""
    net = lively(GraphAttentionNet(AttentionConfig(heads=heads, units=(4, 4)[: len(heads) - 1]), WORDS, 3))
    words, links = random_graph(3, nodes=60)
    resident = Assets(classes=ASSETS.classes, words=WORDS, heads=list(heads), papers=words, links=links)
    whole = run(net, citation_codec.collate([citation_codec.resident(resident)]))["scores"]
    [found] = predict(net, LABEL_NODES, [Instance(node_ids=list(range(60)))], resident)
    np.testing.assert_allclose(found["scores"], whole, atol=1e-6)
    for node in range(0, 60, 7):
        [found] = predict(net, LABEL_NODES, [Instance(node_ids=[node])], resident)
        np.testing.assert_allclose(found["scores"][0], whole[node], atol=1e-6)
        cites = [node, (node * 5) % 60]
        paper = NewPaper(words=words[node], cites=cites)
        [found] = predict(net, LABEL_NODES, [Instance(new=[paper, NewPaper(words=[1]), paper])], resident)
        grown = Instance(words=[*words, words[node]], edges=[*links, *((cited, 60) for cited in cites)])
        [wanted] = predict(net, LABEL_NODES, [grown], resident)
        np.testing.assert_allclose(found["scores"][[0, 2]], wanted["scores"][[60, 60]], atol=1e-6)


def test_attention_sums_to_one(node_net: GraphAttentionNet) -> None:
    """For every head the weights into one node sum to 1, whatever the size of the scores."""
    with torch.no_grad():
        for layer in node_net.layers:
            layer.get_parameter("weight").mul_(1e3)
    words, links = random_graph(1)
    [found] = predict(node_net, LABEL_NODES, [Instance(words=words, edges=links)], ASSETS)
    sums = np.zeros((len(words), 5))
    np.add.at(sums, found["attention"]["edges"][:, 1], found["attention"]["weights"].T)
    np.testing.assert_allclose(sums, 1, atol=1e-5)
    assert np.isfinite(found["scores"]).all()


def test_elu() -> None:
    """ELU from Exp is ELU, gradients at large values included."""
    x = torch.tensor([-50.0, -1.0, 0.0, 2.0, 200.0], requires_grad=True)
    [gradient] = torch.autograd.grad(elu(x).sum(), x)
    torch.testing.assert_close(elu(x), torch.nn.functional.elu(x))
    assert gradient.isfinite().all()
