"""Train the graph models."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import torch
from msgspec import convert
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from models.card import Feeds
from models.errors import DataError
from models.graph import LABEL_GRAPH, LABEL_NODES, citation_codec, molecule_codec
from models.graph.edges import Ints
from models.graph.train.citation_data import CITESEER, CORA, load_citation, load_public
from models.graph.train.molecule_data import FOLDS, MOST_UNASKED, MoleculeOptions, load_molecules
from models.graph.train.net import AttentionConfig, GraphAttentionNet
from models.training import plots
from models.training.checkpoint import FINAL_WEIGHTS
from models.training.ending import GO_ON, TrainingEnd
from models.training.loop import Recipe, TrainingPlan, fit, seed_everything

# A thousandth of the loss, in %: among epochs with the same accuracy the more certain one is the better.
TIE = 1e-3
PUBLIC = {"cora": CORA, "citeseer": CITESEER}


@dataclass(frozen=True, slots=True, kw_only=True)
class CitationMethod:
    """Describe what a citation model learns from.

    Attributes:
        dataset: The public graph; a user's own data take its place.
    """

    dataset: Literal["cora", "citeseer"] = "cora"


@dataclass(frozen=True, slots=True, kw_only=True)
class MoleculeMethod:
    """Describe what a molecule model is told of an atom.

    Attributes:
        is_degree_known: Whether it is told the count of the atom's bonds beside its symbol.
    """

    is_degree_known: bool = True


def _tensors(feeds: Feeds) -> list[Tensor]:
    return [torch.from_numpy(feed) for feed in feeds.values()]


def _score(logits: Tensor, truth: Tensor, split: str) -> float:
    """Accuracy in %; on validation less ``TIE`` times the loss."""
    tie = TIE * float(cross_entropy(logits, truth)) if split == "validation" else 0.0
    return 100 * float((logits.argmax(-1) == truth).double().mean()) - tie


class CitationLearner:
    """Learns the labels of a few nodes from the whole graph, as in the paper: one step per epoch."""

    def __init__(self, recipe: Recipe, path: Path | None, seed: int) -> None:
        method: CitationMethod = recipe.method
        if recipe.reading:
            expected = "its arrays train, val, test and classes to say so"
            raise DataError(
                path or "--data", found=f"options for molecules ({', '.join(recipe.reading)})", expected=expected
            )
        data = load_public(PUBLIC[method.dataset]) if path is None else load_citation(path, seed)
        config: AttentionConfig = recipe.network
        assets = msgspec.structs.replace(data.assets, heads=list(config.heads), hops=config.hops)
        self.data = replace(data, assets=assets)
        self.net = GraphAttentionNet(config, assets.words, len(assets.classes))
        self.feeds = _tensors(citation_codec.collate([citation_codec.resident(assets)]))
        self.labels = torch.from_numpy(data.labels)
        self.splits = {split: torch.from_numpy(nodes) for split, nodes in data.splits.items()}

    def batch_count(self) -> int:
        """The graph is one batch."""
        return 1

    def batches(self, rng: np.random.Generator) -> Iterator[Tensor]:
        """Yield the training nodes, once; nothing is drawn from ``rng``."""
        yield self.splits["train"]

    def loss(self, batch: Tensor) -> Tensor:
        """Cross-entropy at the nodes of the batch."""
        return cross_entropy(self.net.logits(*self.feeds)[batch], self.labels[batch])

    def _logits(self, split: str) -> tuple[Tensor, Tensor]:
        nodes = self.splits[split]
        with torch.inference_mode():
            return self.net.logits(*self.feeds)[nodes], self.labels[nodes]

    def score(self, split: str) -> float:
        """Accuracy in %; on validation less ``TIE`` times the loss."""
        return _score(*self._logits(split), split)

    def finish(self, directory: Path, ending: TrainingEnd = GO_ON) -> dict[str, Any]:
        """Return nothing to calibrate."""
        return {}

    def pooled(self) -> None:
        """Not wanted: the public split says which labels may be learned from."""

    def draw(self, directory: Path) -> None:
        """The confusion matrix on test."""
        logits, truth = self._logits("test")
        classes = self.data.assets.classes
        plots.confusion(directory / "confusion.png", truth.numpy(), logits.argmax(-1).numpy(), classes)


class FoldLearner:
    """Learns the labels of molecules outside one fold."""

    def __init__(self, recipe: Recipe, path: Path | None, seed: int, fold: int) -> None:
        self.options = convert(dict(recipe.reading), MoleculeOptions)
        if self.options.test and self.options.folds not in ("", "0"):
            raise DataError("--folds", found=f"{self.options.folds} beside --test", expected="one of the two")
        data = load_molecules(path, seed, fold, self.options)
        config: AttentionConfig = recipe.network
        method: MoleculeMethod = recipe.method
        # Of one count to tell apart, every atom has the same.
        degrees = data.assets.degrees if method.is_degree_known else 1
        assets = msgspec.structs.replace(data.assets, heads=list(config.heads), hops=config.hops, degrees=degrees)
        self.recipe, self.path, self.seed, self.fold = recipe, path, seed, fold
        self.data = replace(data, assets=assets)
        self.net = GraphAttentionNet(config, len(assets.atoms) + assets.degrees, len(assets.classes))
        self.splits = dict(data.splits)
        self.samples = [molecule_codec.encode(molecule, assets) for molecule in data.molecules]
        self.answers: list[tuple[int, int]] = []  # true and found class of every molecule cross-validated

    def batch_count(self) -> int:
        """A remainder of less than a batch is spread over the others."""
        return max(1, len(self.splits["train"]) // self.recipe.plan.batch_size)

    def batches(self, rng: np.random.Generator) -> Iterator[Ints]:
        """Numbers of molecules, ``(B,)``."""
        yield from np.array_split(rng.permutation(self.splits["train"]), self.batch_count())

    def logits(self, numbers: Ints) -> tuple[Tensor, Tensor]:
        """Logits ``(B, K)`` and true class ids ``(B,)`` of some molecules."""
        feeds = molecule_codec.collate([self.samples[number] for number in numbers])
        return self.net.logits(*_tensors(feeds)), torch.from_numpy(self.data.labels[numbers])

    def loss(self, batch: Ints) -> Tensor:
        """Cross-entropy."""
        return cross_entropy(*self.logits(batch))

    def score(self, split: str) -> float:
        """Accuracy in %; on validation less ``TIE`` times the loss."""
        with torch.inference_mode():
            return _score(*self.logits(self.splits[split]), split)

    def finish(self, directory: Path, ending: TrainingEnd = GO_ON) -> dict[str, Any]:
        """Return nothing to calibrate."""
        return {}

    def pooled(self) -> "FoldLearner":
        """Return a net on all but the test fold: an epoch chosen on nineteen validation molecules is luck."""
        seed_everything(self.seed)
        again = FoldLearner(self.recipe, self.path, self.seed, self.fold)
        again.splits["train"] = np.union1d(self.splits["train"], self.splits["validation"])
        again.answers = self.answers
        return again

    def draw(self, directory: Path) -> None:
        """The confusion matrix of the cross-validation; without one, nothing: a fold alone is too small."""
        if self.answers:
            truth, found = np.asarray(self.answers).T
            plots.confusion(directory / "confusion.png", truth, found, self.data.assets.classes)


class MoleculeLearner(FoldLearner):
    """Learns with the first of ten folds for test, or with the test part that was given, and reports on other folds."""

    def __init__(self, recipe: Recipe, path: Path | None, seed: int) -> None:
        super().__init__(recipe, path, seed, fold=0)

    def fold_count(self) -> int:
        """Folds to cross-validate: those asked for, else all of few graphs, and none of many or beside a test part."""
        if self.options.folds:
            return int(self.options.folds)
        is_much = len(self.data.labels) > MOST_UNASKED and self.path is not None
        return 0 if is_much or self.options.test else FOLDS

    def finish(self, directory: Path, ending: TrainingEnd = GO_ON) -> dict[str, Any]:
        """Cross-validation: the training repeated, each time tested on a fold that it has not seen.

        No epoch is chosen by a test fold, as is usual on MUTAG: a fold's net is the last of a schedule whose length is
        fixed for all folds and seeds. Finished folds and whole epochs are kept in ``directory``.
        """
        count, scores, started = self.fold_count(), [], time.perf_counter()
        if not count:
            return {}
        tqdm.write(f"cross-validation: {count} folds, each about as long as the whole training; finished ones are kept")
        for fold in range(count):
            fold_folder = directory / "folds" / str(fold)
            if ending.is_now(may_begin=False) and not (fold_folder / FINAL_WEIGHTS).exists():
                self.answers.clear()
                return {"not_done": f"cross-validation, of which {fold} of {count} folds are trained"}
            scores.append(self._test_fold(fold, fold_folder))
            left = (time.perf_counter() - started) / (fold + 1) * (count - fold - 1)
            tqdm.write(f"fold {fold + 1}/{count}  test accuracy {scores[-1]:.3f} %  about {left:.0f} s left")
        spread = {"mean": float(np.mean(scores)), "sd": float(np.std(scores))}
        return {"cross_validation": {"folds": scores, **spread}}

    def _test_fold(self, fold: int, directory: Path) -> float:
        seed_everything(self.seed)
        learner = FoldLearner(self.recipe, self.path, self.seed, fold)
        fit(learner, self.recipe, seed=self.seed, directory=directory, quiet=True)
        learner.net.load_state_dict(torch.load(directory / FINAL_WEIGHTS, weights_only=True))
        with torch.inference_mode():
            logits, truth = learner.logits(learner.splits["test"])
        self.answers += zip(truth.tolist(), logits.argmax(-1).tolist(), strict=True)
        return learner.score("test")


CITATION = Recipe(
    name="citation",
    card=LABEL_NODES,
    summary="graph attention, eight heads of eight units and one of the classes",
    plan=TrainingPlan(
        epochs=400,
        patience=200,
        batch_size=1,
        # Twice the paper's: 82.8 instead of 82.5 % on validation, mean of ten seeds.
        learning_rate=1e-2,
        weight_decay=5e-4,
        optimizer="adam",
        is_one_cycle=False,
    ),
    network=AttentionConfig(),
    learner=CitationLearner,
    method=CitationMethod(),
)
MOLECULE = Recipe(
    name="molecule",
    card=LABEL_GRAPH,
    summary="graph attention, three layers of four heads, read out over all atoms",
    plan=TrainingPlan(epochs=100, patience=100, batch_size=32, learning_rate=1e-2, weight_decay=1e-3),
    network=AttentionConfig(heads=(4, 4, 4), units=(16, 16, 16), dropout=0.2, is_label_graph=True, readout=64),
    learner=MoleculeLearner,
    method=MoleculeMethod(),
)
RECIPES = (CITATION, MOLECULE)
