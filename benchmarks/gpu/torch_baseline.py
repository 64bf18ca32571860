"""The torch nets of the shipped models on a device, to be timed against: their sizes, with random weights."""

from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import nn

from models.artifact.manifest import Manifest
from models.card import AnyCard, Array, Feeds
from models.graph.train.net import GraphAttentionNet
from models.image.train.net import NETS
from models.tagging.train.net import TaggerNet
from models.train.__main__ import recipes
from models.viewcount.train.net import DenseNet

# By family and task: the recipe's sizes and the model's constants to a net.
MAKERS: dict[tuple[str, str], Callable[[Any, Any], nn.Module]] = {
    ("viewcount", "forecast"): DenseNet,
    ("tagging", "tag"): lambda sizes, assets: TaggerNet(sizes, assets, fine_tags=1),
    ("image", "classify"): lambda sizes, assets: NETS[type(sizes)](sizes, assets, 127.0, 64.0),
    ("graph", "label_nodes"): lambda sizes, assets: GraphAttentionNet(sizes, assets.words, len(assets.classes)),
    ("graph", "label_graph"): lambda sizes, assets: GraphAttentionNet(
        sizes, len(assets.atoms) + assets.degrees, len(assets.classes)
    ),
}
Run = Callable[[Feeds], dict[str, Array]]


def net_of(manifest: Manifest, assets: Any) -> nn.Module:
    """Return a net as large as the one that was trained, in evaluation mode."""
    recipe = recipes(manifest.family)[manifest.training.recipe["name"]]
    return MAKERS[manifest.family, manifest.task](recipe.network, assets).eval()


def runs_of(net: nn.Module, card: AnyCard, device: str, *, compiles: bool) -> dict[str, Run]:
    """Feeds to outputs, both in the host's memory, by how torch computes them."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    there = net.to(device)
    runs = {"eager": partial(_run, there, card, device)}
    if compiles:
        runs["compile"] = partial(_run, torch.compile(there), card, device)
    return runs


def _run(net: Any, card: AnyCard, device: str, feeds: Feeds) -> dict[str, Array]:
    with torch.inference_mode():
        found = net(*(torch.from_numpy(feeds[spec.name]).to(device) for spec in card.inputs))
        return {name: tensor.cpu().numpy() for name, tensor in found.items()}


def best_seconds(run: Callable[[], Any], budget_seconds: float) -> float:
    """Return the least time of a call, after two to warm up, within a budget; at least three are timed."""
    for _ in range(2):
        run()
    times, end = list[float](), perf_counter() + budget_seconds
    while len(times) < 3 or (perf_counter() < end and len(times) < 1000):
        started = perf_counter()
        run()
        times.append(perf_counter() - started)
    return min(times)
