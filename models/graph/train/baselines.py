"""Compute graph baselines: the most frequent class, and ridge regression on words. numpy only."""

import numpy as np
from numpy.typing import NDArray

from models.graph.edges import Ints
from models.graph.train.citation_data import CitationData, load_public
from models.graph.train.molecule_data import FOLDS, fold_of_each, load_molecules
from models.training.datasets import Dataset

Floats = NDArray[np.float64]
PENALTIES = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)
SPLITS = ("train", "validation", "test")


def majority_of_nodes(dataset: Dataset) -> dict[str, float]:
    """Accuracy in % by split of the class most frequent on validation: the training part has as many of each."""
    data = load_public(dataset)
    winner = np.bincount(data.labels[data.splits["validation"]]).argmax()
    return {split: _share(data.labels[data.splits[split]] == winner) for split in SPLITS}


def majority_of_molecules() -> dict[str, float]:
    """Accuracy in % of the more frequent class, the mean over ten folds; the training part decides which."""
    data = load_molecules()
    folds = fold_of_each(data.labels, seed=0)
    scores = []
    for fold in range(FOLDS):
        held = {"test": folds == fold, "validation": folds == (fold + 1) % FOLDS}
        parts = {"train": ~(held["test"] | held["validation"]), **held}
        winner = np.bincount(data.labels[parts["train"]]).argmax()
        scores.append([_share(data.labels[parts[split]] == winner) for split in SPLITS])
    return dict(zip(SPLITS, np.mean(scores, axis=0).tolist(), strict=True))


def ridge(dataset: Dataset, hops: int) -> dict[str, float]:
    """Accuracy in % by split of ridge regression from words, averaged over the neighbours ``hops`` times.

    Simple graph convolution (Wu et al. 2019, arXiv:1902.07153, eq. 7): ``S^k X`` with
    ``S = D^-1/2 (A + I) D^-1/2``, here under a ridge instead of a softmax. With no hop, words alone. Solved in the
    dual, whose kernel has a row per training node. Validation chooses the penalty.
    """
    data = load_public(dataset)
    train = data.splits["train"]
    kernel = _kernel(data, train, hops)  # (N, M)
    targets = np.eye(len(data.assets.classes))[data.labels[train]]  # (M, K)
    targets -= targets.mean(0)
    scale = np.trace(kernel[train]) / len(train)
    best: dict[str, float] = {}
    for penalty in PENALTIES:
        found = kernel @ np.linalg.solve(kernel[train] + penalty * scale * np.eye(len(train)), targets)
        hits = found.argmax(1) == data.labels
        scores = {split: _share(hits[data.splits[split]]) for split in SPLITS}
        if not best or scores["validation"] > best["validation"]:
            best = scores
    return best


def _kernel(data: CitationData, train: Ints, hops: int) -> Floats:
    """Products ``(N, M)`` of every node's averaged words with those of the training nodes."""
    words = np.zeros((len(data.labels), data.assets.words), np.float32)
    for row, bag in zip(words, data.assets.papers, strict=True):
        row[bag] = 1 / max(1, len(bag))
    seeds = np.zeros((len(data.labels), len(train)))
    seeds[train, np.arange(len(train))] = 1
    near = average(data.assets.edges, seeds, hops)  # S is symmetric: the training rows of S^k, as columns
    return average(data.assets.edges, (words @ (words.T @ near.astype(np.float32))).astype(np.float64), hops)


def average(edges: Ints, x: Floats, hops: int) -> Floats:
    """``S^hops x`` of canonical edges ``(2, E)`` and ``(N, D)``."""
    degrees = np.bincount(edges[1])
    starts = np.concatenate([[0], np.cumsum(degrees)[:-1]])
    weights = 1 / np.sqrt(degrees[edges[0]] * degrees[edges[1]])
    for _ in range(hops):
        x = np.add.reduceat(x[edges[0]] * weights[:, None], starts)  # every node has its self-loop
    return x


def _share(hits: NDArray[np.bool_]) -> float:
    return 100 * float(hits.mean())
