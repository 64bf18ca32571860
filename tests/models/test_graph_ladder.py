"""The graph ladder: every rung is a configuration of one net, and each way of hearing does what it says."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.card import AnyCard
from models.errors import Fault
from models.graph import LABEL_GRAPH, LABEL_NODES, citation_codec
from models.graph.citation_schema import MAX_WALKS, Assets, Instance, NewPaper, random_links
from models.graph.edges import by_distance, canonical, count_walks, side_by_side
from models.graph.molecule_schema import Assets as MoleculeAssets
from models.graph.molecule_schema import Instance as Molecule
from models.graph.train.baselines import average, majority_of_molecules, majority_of_nodes, ridge
from models.graph.train.citation_data import CITESEER, CORA, load_public
from models.graph.train.experiments import LADDER
from models.graph.train.molecule_data import MUTAG
from models.graph.train.net import AttentionConfig, GraphAttention, GraphAttentionNet, Hearing
from models.graph.train.recipe import FoldLearner, MoleculeMethod
from models.training.experiment import ExperimentOutcome, ExperimentRun
from models.training.loop import Recipe, fit, seed_everything

WORDS = 12
FAR = Assets(classes=["a", "b", "c"], words=WORDS, heads=[3, 2], hops=2)
FAR_CHEMISTRY = MoleculeAssets(classes=["no", "yes"], atoms=["C", "N", "O"], heads=[2, 2], degrees=4, hops=2)
Dense = NDArray[np.float64]
RECIPES = [rung.recipe for rung in LADDER.rungs]

has_planetoid = pytest.mark.data(CORA, CITESEER)
has_mutag = pytest.mark.data(MUTAG)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads that wait for each other on a busy machine took twenty times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def lively(layer: Any) -> Any:
    """Weights large enough for attention to be far from even."""
    seed_everything(0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return layer.eval()


def random_graph(seed: int, nodes: int = 15) -> tuple[list[list[int]], list[tuple[int, int]]]:
    """Words of each node, and links."""
    rng = np.random.default_rng(seed)
    words = [np.flatnonzero(rng.random(WORDS) < 0.3).tolist() for _ in range(nodes)]
    return words, random_links(rng, nodes)


def slow_distances(links: list[tuple[int, int]], nodes: int) -> NDArray[np.int64]:
    """Links between every two nodes on the shortest way, by Floyd and Warshall; 99 without one."""
    far = np.full((nodes, nodes), 99)
    np.fill_diagonal(far, 0)
    for u, v in links:
        if u != v:
            far[u, v] = far[v, u] = 1
    for k in range(nodes):
        far = np.minimum(far, far[:, k, None] + far[None, k, :])
    return far


def predict(net: GraphAttentionNet, card: AnyCard, requests: list[Any], assets: Any) -> list[dict[str, Any]]:
    """Predictions of one batch, attention included."""
    samples = [card.encode(request, assets) for request in requests]
    with torch.inference_mode():
        found = net(*map(torch.from_numpy, card.collate(samples).values()))
    return card.decode({name: t.numpy() for name, t in found.items()}, samples, assets)


def test_two_hops_of_a_path_by_heart() -> None:
    """On 0-1-2-3-4 each node hears itself and its neighbours over one hop, and the next but one over two."""
    edges = by_distance(canonical([(0, 1), (1, 2), (2, 3), (3, 4)], 5), 5, 2)
    heard = {
        (hop, node): edges[0, (edges[1] == node) & (edges[2] == hop)].tolist() for hop in (1, 2) for node in range(5)
    }
    assert [heard[1, node] for node in range(5)] == [[0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4]]
    assert [heard[2, node] for node in range(5)] == [[2], [3], [0, 4], [1], [2]]


@pytest.mark.parametrize("seed", range(5))
def test_hops_are_shortest_ways(seed: int) -> None:
    """Every pair at most two links apart is there once, with its distance, in canonical order."""
    _, links = random_graph(seed, nodes=25)
    near = canonical(links, 25)
    edges = by_distance(near, 25, 2)
    far = slow_distances(links, 25)
    targets, sources = np.nonzero(far <= 2)
    assert edges[:2].tolist() == [sources.tolist(), targets.tolist()]
    assert edges[2].tolist() == np.maximum(far[targets, sources], 1).tolist()
    assert by_distance(near, 25, 1) is near
    assert count_walks(near) == ((far <= 1).astype(int) @ (far <= 1)).sum()


def test_hops_of_graphs_side_by_side() -> None:
    """Ends are renumbered, hops are not; no edge of two hops joins two graphs."""
    links = [[(0, 1), (1, 2)], [(0, 1)], [(0, 1), (1, 2), (2, 3)]]
    nodes = [3, 2, 4]
    parts = [by_distance(canonical(part, count), count, 2) for part, count in zip(links, nodes, strict=True)]
    together = side_by_side(parts, nodes)
    shifted = [(u + start, v + start) for part, start in zip(links, (0, 3, 5), strict=True) for u, v in part]
    assert together.tolist() == by_distance(canonical(shifted, 9), 9, 2).tolist()
    owner = np.repeat([0, 1, 2], nodes)
    assert (owner[together[0]] == owner[together[1]]).all()


def slow_shares(layer: GraphAttention, head: int, x: Dense, far: NDArray[np.int64]) -> Dense:
    """Return how much every node hears of every other ``(N, N)``, pair by pair, by the layer's way of hearing."""
    nodes, shares = len(x), np.zeros((len(x), len(x)))
    if layer.hearing == "itself":
        return np.eye(nodes)
    if layer.hearing == "mean":
        return (far <= 1) / (far <= 1).sum(1, keepdims=True)
    assert layer.source is not None
    assert layer.target is not None
    assert layer.share is not None
    weight, source, target, share = (
        p.detach().double().numpy() for p in (layer.weight, layer.source, layer.target, layer.share)
    )
    wh = x @ weight[:, head * layer.units : (head + 1) * layer.units]
    for i in range(nodes):
        sets = {hop: np.flatnonzero(np.maximum(far[i], 1) == hop) for hop in (1, 2)}
        found = {hop: heard for hop, heard in sets.items() if len(heard)}
        total = sum(np.exp(share[hop - 1, head]) for hop in found)
        for hop, heard in found.items():
            row = (hop - 1) * layer.heads + head
            e = wh[heard] @ source[row] + wh[i] @ target[row]
            powers = np.exp(np.where(e > 0, e, 0.2 * e))
            shares[i, heard] = powers / powers.sum() * np.exp(share[hop - 1, head]) / total
    return shares


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("hearing", "hops"), [("itself", 1), ("mean", 1), ("attention", 2)])
def test_hearing_against_slow_layer(hearing: Hearing, hops: int, seed: int) -> None:
    """A layer's outputs and weights are those written out pair by pair over dense matrices."""
    _, links = random_graph(seed)
    layer = lively(GraphAttention(6, 3, 4, 0.6, is_averaged=False, hearing=hearing, hops=hops))
    x = np.random.default_rng(seed).normal(size=(15, 6))
    edges = by_distance(canonical(links, 15), 15, hops)
    with torch.inference_mode():
        found, weights = layer(torch.from_numpy(x).float() @ layer.fold(), torch.from_numpy(edges))
    far = slow_distances(links, 15)
    values = x @ layer.weight.detach().double().numpy()
    for head in range(3):
        shares = slow_shares(layer, head, x, far)
        np.testing.assert_allclose(weights[:, head], shares[edges[1], edges[0]], rtol=1e-4, atol=1e-6)
        columns = slice(head * 4, head * 4 + 4)
        wanted = shares @ values[:, columns] + layer.bias.detach().numpy()[columns]
        np.testing.assert_allclose(found[:, columns], wanted, rtol=1e-4, atol=1e-5)


def test_features_only_hears_no_neighbour() -> None:
    """Other links change no score of a net that hears itself alone, and change those of a mean."""
    words, links = random_graph(2)
    requests = [Instance(words=words, edges=links), Instance(words=words)]
    moved = {}
    for hearing in ("itself", "mean"):
        config = AttentionConfig(heads=(3, 2), units=(4,), hearing=hearing)  # type: ignore[arg-type]
        net = lively(GraphAttentionNet(config, WORDS, 3))
        one, other = predict(net, LABEL_NODES, requests, Assets(classes=FAR.classes, words=WORDS, heads=[3, 2]))
        moved[hearing] = np.abs(one["scores"] - other["scores"]).max()
    assert moved["itself"] < 1e-6
    assert moved["mean"] > 1e-2


@pytest.mark.parametrize("task", ["nodes", "graph"])
def test_two_hops_in_company(task: str) -> None:
    """Thirty requests over two hops are answered together as each alone, and the weights into a node sum to 1."""
    choices: dict[str, tuple[AttentionConfig, int, AnyCard, Any]] = {
        "nodes": (AttentionConfig(heads=(3, 2), units=(4,), hops=2), WORDS, LABEL_NODES, FAR),
        "graph": (
            AttentionConfig(heads=(2, 2), units=(3, 5), hops=2, is_label_graph=True, readout=6),
            7, LABEL_GRAPH, FAR_CHEMISTRY,
        ),
    }  # fmt: skip
    config, features, card, assets = choices[task]
    net = lively(GraphAttentionNet(config, features, len(assets.classes)))
    rng = np.random.default_rng(0)
    requests = [card.random_request(rng, assets) for _ in range(30)]
    for request, found in zip(requests, predict(net, card, requests, assets), strict=True):
        [alone] = predict(net, card, [request], assets)
        np.testing.assert_allclose(found["scores"], alone["scores"], atol=1e-6)
        assert found["attention"]["edges"].tolist() == alone["attention"]["edges"].tolist()
        edges, weights = found["attention"]["edges"], found["attention"]["weights"]
        sums = np.zeros((edges.max() + 1, len(weights)))
        np.add.at(sums, edges[:, 1], weights.T)
        np.testing.assert_allclose(sums, 1, atol=1e-5)


def test_two_hops_need_a_part_of_the_resident_graph_only() -> None:
    """Nodes and new papers get the answers of a run over the whole resident graph, new paper included."""
    net = lively(GraphAttentionNet(AttentionConfig(heads=(3, 2), units=(4,), hops=2), WORDS, 3))
    words, links = random_graph(3, nodes=60)
    links = [link for link in links if 0 not in link]  # a hub would bring everything within two hops
    resident = Assets(classes=FAR.classes, words=WORDS, heads=[3, 2], hops=2, papers=words, links=links)
    whole = citation_codec.collate([citation_codec.resident(resident)])
    with torch.inference_mode():
        wanted = net(*map(torch.from_numpy, whole.values()))["scores"].numpy()
    for node in range(0, 60, 3):
        [found] = predict(net, LABEL_NODES, [Instance(node_ids=[node])], resident)
        np.testing.assert_allclose(found["scores"][0], wanted[node], atol=1e-6)
        cites = [node, (node * 5) % 60]
        paper = NewPaper(words=words[node], cites=cites)
        [found] = predict(net, LABEL_NODES, [Instance(new=[paper, NewPaper(words=[1])])], resident)
        grown = Instance(words=[*words, words[node]], edges=[*links, *((cited, 60) for cited in cites)])
        [again] = predict(net, LABEL_NODES, [grown], resident)
        np.testing.assert_allclose(found["scores"][0], again["scores"][60], atol=1e-6)


def test_too_many_walks_are_refused() -> None:
    """A hub joins all its neighbours over two hops: refused by distance, welcome otherwise."""
    star = Instance(words=[[]] * 1200, edges=[(0, node) for node in range(1, 1200)])
    walks = 1200**2 + 1199 * 4
    reason = f"expected at most {MAX_WALKS} walks of two links, found up to {walks}"
    assert list(LABEL_NODES.validate(star, FAR)) == [Fault((), reason)]
    assert list(LABEL_NODES.validate(star, Assets(classes=["a", "b"], words=WORDS))) == []


def test_bound_on_walks_of_new_papers() -> None:
    """The bound is at least what is really walked, links of the new paper included."""
    words, links = random_graph(4, nodes=60)
    resident = Assets(classes=FAR.classes, words=WORDS, heads=[3, 2], hops=2, papers=words, links=links)
    paper = NewPaper(words=[1], cites=[0, 7, 7, 9])
    many = Instance(new=[paper] * 32)
    grown = count_walks(canonical([*links, (0, 60), (7, 60), (9, 60)], 61))
    assert list(LABEL_NODES.validate(many, resident)) == []
    packed = Assets(classes=FAR.classes, words=WORDS, hops=2, papers=[[]] * 700, links=[(0, n) for n in range(1, 700)])
    [fault] = LABEL_NODES.validate(Instance(new=[NewPaper(words=[1], cites=[0])] * 3), packed)
    walked = count_walks(canonical([*packed.links, (0, 700)], 701))
    assert fault.reason.endswith(f"found up to {3 * walked}")
    assert grown > resident.walks


def test_names_and_seeds() -> None:
    """Recipes are named once, in lower case, and the shipped ones are rungs."""
    names = [recipe.name for recipe in RECIPES] + [reference.name for reference in LADDER.references]
    assert len(set(names)) == len(names)
    assert all(name == name.lower() and len(name) <= 40 for name in names)
    assert {"citation", "molecule"} < set(names)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
@has_planetoid
@has_mutag
def test_every_rung_constructs(recipe: Recipe) -> None:
    """Each learner has a loss with a gradient for every parameter, and sizes that its card knows."""
    seed_everything(0)
    learner = recipe.learner(recipe, None, 0)
    batch = next(iter(learner.batches(np.random.default_rng(0))))
    learner.loss(batch).backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in learner.net.parameters())
    assert learner.data.assets.sizes["heads"] == sum(recipe.network.heads)
    assert learner.data.assets.sizes["ends"] == 1 + recipe.network.hops


@has_planetoid
def test_citeseer() -> None:
    """The public split, with its isolated nodes and those that have no label."""
    data = load_public(CITESEER)
    assert len(data.assets.papers) == 3327
    assert [len(nodes) for nodes in data.splits.values()] == [120, 500, 1000]
    assert np.bincount(data.labels[data.splits["train"]]).tolist() == [20] * 6
    heard = np.bincount(data.assets.edges[1])
    assert (heard == 1).sum() == 48
    unknown = np.flatnonzero(data.labels < 0)
    assert len(unknown) == 15
    assert all(not data.assets.papers[node] for node in unknown)


def write_chains(folder: Path) -> Path:
    """Twenty chains of three atoms and twenty rings."""
    bonds = [[(1, 2), (2, 3), *([(3, 1)] if n % 2 else [])] for n in range(40)]
    texts = {
        "A": "".join(f"{3 * n + u},{3 * n + v}\n" for n in range(40) for u, v in bonds[n]),
        "graph_indicator": "".join(f"{n + 1}\n" * 3 for n in range(40)),
        "graph_labels": "".join(f"{n % 2}\n" for n in range(40)),
        "node_labels": "0\n" * 120,
    }
    for name, text in texts.items():
        (folder / f"OWN_{name}.txt").write_text(text)
    return folder


def test_atoms_only_cannot_tell_rings(tmp_path: Path) -> None:
    """Without bonds and their count a ring is a chain; with the count it is another molecule."""
    base = next(recipe for recipe in RECIPES if recipe.name == "molecule-atoms")
    found = {}
    for is_known in (False, True):
        recipe = replace(base, method=MoleculeMethod(is_degree_known=is_known))
        seed_everything(0)
        learner = FoldLearner(recipe, write_chains(tmp_path), 0, fold=0)
        learner.net.eval()
        found[is_known] = learner.logits(np.array([0, 1]))[0].detach().numpy()
    assert found[False][0].tolist() == found[False][1].tolist()
    assert found[True][0].tolist() != found[True][1].tolist()
    assert learner.data.assets.degrees == 3
    assert LABEL_GRAPH.encode(Molecule(atoms=["0"]), learner.data.assets).features.tolist() == [[0, 1]]


def test_average_against_dense() -> None:
    """Simple graph convolution is the power of the normalised matrix."""
    _, links = random_graph(5)
    near = (slow_distances(links, 15) <= 1).astype(float)
    scale = 1 / np.sqrt(near.sum(1))
    x = np.random.default_rng(0).normal(size=(15, 4))
    wanted = np.linalg.matrix_power(near * scale * scale[:, None], 3) @ x
    np.testing.assert_allclose(average(canonical(links, 15), x, 3), wanted, atol=1e-12)


@has_planetoid
@has_mutag
def test_references() -> None:
    """Words alone, words averaged over three hops, and guessing: near what others measured on these files."""
    assert majority_of_nodes(CORA)["test"] == pytest.approx(31.9)
    assert majority_of_molecules()["test"] == pytest.approx(66.5, abs=0.1)
    assert ridge(CITESEER, 0)["test"] == pytest.approx(62.1, abs=2)
    assert ridge(CORA, 3)["test"] == pytest.approx(81.5, abs=1)


def test_pictures(tmp_path: Path) -> None:
    """Both are drawn from results, also where some rungs have none yet."""
    results = {}
    for rung in LADDER.rungs:
        more = (
            {"cross_validation": {"folds": [70.0, 90.0], "mean": 80.0, "sd": 10.0}} if rung.section == "MUTAG" else {}
        )
        trials = [
            ExperimentRun(
                seed=s,
                scores=dict.fromkeys(("train", "validation", "test"), 80.0 + s),
                seconds=1,
                epochs=1,
                best_epoch=1,
                more=more,
            )
            for s in range(2)
        ]
        results[rung.recipe.name] = ExperimentOutcome(
            section=rung.section, label=rung.label, metric="accuracy", unit="%", settings={"name": "x"},
            parameters=1, threads=1, trials=[] if rung.label == "features only" else trials,
        )  # fmt: skip
    for picture in LADDER.pictures:
        picture.draw(tmp_path / picture.file, results)
        assert (tmp_path / picture.file).read_bytes().startswith(b"\x89PNG")


def test_a_rung_trains(tmp_path: Path) -> None:
    """A short run of a rung with another way of hearing ends with the folds in its report."""
    base = next(recipe for recipe in RECIPES if recipe.name == "molecule-hops")
    recipe = replace(base, plan=replace(base.plan, epochs=1))
    seed_everything(0)
    learner = recipe.learner(recipe, write_chains(tmp_path), 0)
    report = fit(learner, recipe, seed=0, directory=tmp_path / "run", quiet=True)
    assert len(report["cross_validation"]["folds"]) == 10
    assert report["recipe"]["method"] == {"is_degree_known": True}
    assert report["recipe"]["network"]["hops"] == 2


def test_inputs_while_training() -> None:
    """Without dropout the bag of the training gives what is exported, empty nodes included, and its gradient."""
    net = lively(GraphAttentionNet(AttentionConfig(heads=(3, 2), units=(4,), dropout=0.0), WORDS, 3))
    requests = [Instance(words=[[], [1, 2], [], [11], []], edges=[(0, 1)])]
    feeds = citation_codec.collate([citation_codec.encode(request, FAR) for request in requests])
    features, node_of_feature, counts, _ = map(torch.from_numpy, feeds.values())
    table = torch.randn(WORDS, 5, requires_grad=True)
    found = []
    for mode in (False, True):
        net.train(mode)
        total = net.embed(table, features, node_of_feature, counts)
        [gradient] = torch.autograd.grad(total.square().sum(), table)
        found.append((total, gradient))
    torch.testing.assert_close(found[1], found[0])
    assert found[1][0][[0, 2, 4]].abs().sum() == 0
