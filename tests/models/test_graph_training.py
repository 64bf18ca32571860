"""Graph models learn: from a user's own citations, and from molecules by folds."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.graph.train.recipe import RECIPES, FoldLearner
from models.training.loop import Recipe, fit, seed_everything


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads that wait for each other on a busy machine took twenty times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def short_recipe(name: str, epochs: int) -> Recipe:
    """Return the recipe with fewer epochs."""
    recipe = next(recipe for recipe in RECIPES if recipe.name == name)
    return replace(recipe, plan=replace(recipe.plan, epochs=epochs))


def write_citations(folder: Path) -> Path:
    """Two groups of papers with words and links of their own."""
    labels = np.arange(40) % 2
    rng = np.random.default_rng(0)
    words = [np.unique(rng.integers(0, 6, 4)) + 6 * label for label in labels]
    links = [(node, node + 2) for node in range(38)]
    np.savez(
        folder / "own.npz",
        indptr=np.cumsum([0, *map(len, words)]),
        indices=np.concatenate(words),
        shape=np.array([40, 12]),
        labels=labels,
        edges=np.array(links),
    )
    return folder / "own.npz"


def write_molecules(folder: Path) -> Path:
    """Rings and chains of five atoms."""
    bonds = [[(1, 2), (2, 3), (3, 4), (4, 5), *([(5, 1)] if n % 2 else [])] for n in range(40)]
    texts = {
        "A": "".join(f"{5 * n + u},{5 * n + v}\n" for n in range(40) for u, v in bonds[n]),
        "graph_indicator": "".join(f"{n + 1}\n" * 5 for n in range(40)),
        "graph_labels": "".join(f"{n % 2}\n" for n in range(40)),
        "node_labels": "0\n" * 200,
    }
    for name, text in texts.items():
        (folder / f"OWN_{name}.txt").write_text(text)
    return folder


def test_learns_citations(tmp_path: Path) -> None:
    """A few steps lower the loss, and a run over a user's own file ends with a report."""
    recipe = short_recipe("citation", 3)
    seed_everything(0)
    learner = recipe.learner(recipe, write_citations(tmp_path), 0)
    report = fit(learner, recipe, seed=0, directory=tmp_path / "run", quiet=True)
    losses = [epoch["loss"] for epoch in report["history"]]
    assert losses[-1] < losses[0]
    assert (tmp_path / "run" / "confusion.png").exists()
    assert learner.data.assets.sizes["heads"] == 9


def test_learns_molecules(tmp_path: Path) -> None:
    """Rings are told from chains in thirty epochs; the pooled learner has the validation part as well."""
    recipe = short_recipe("molecule", 30)
    seed_everything(0)
    learner = FoldLearner(recipe, write_molecules(tmp_path), 0, fold=2)
    report = fit(learner, recipe, seed=0, directory=tmp_path / "run", quiet=True)
    losses = [epoch["loss"] for epoch in report["history"]]
    assert losses[-1] < losses[0]
    assert len(learner.pooled().splits["train"]) == 36
    assert report["scores"]["test"] == 100


def test_cross_validation(tmp_path: Path) -> None:
    """Each fold is tested by a net that has not seen it; the shipped net is the first fold's."""
    recipe = short_recipe("molecule", 1)
    seed_everything(0)
    learner = recipe.learner(recipe, write_molecules(tmp_path), 0)
    report = fit(learner, recipe, seed=0, directory=tmp_path / "run", quiet=True)
    folds = report["cross_validation"]["folds"]
    assert len(folds) == 10
    assert report["cross_validation"]["mean"] == pytest.approx(np.mean(folds))
    assert report["scores"]["test"] == folds[0]
    assert (tmp_path / "run" / "confusion.png").exists()
