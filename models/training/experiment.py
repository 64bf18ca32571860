"""Describe a family's experiments: recipes to train, baselines to beat, plots of the results."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import msgspec

from models.training.datasets import ScoreMetric
from models.training.loop import Recipe

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One model of a ladder.

    Attributes:
        section: The question it answers, a heading of the table; rungs of one section stand together.
        label: What the table calls it.
        recipe: How it is trained; its name is the rung's, and ``models.train --recipe`` knows it.
        seeds: Trained with seeds ``0 .. seeds - 1``.
        is_shipped: Its result is that of the shipped model's manifest; it is trained by ``models.train``.
    """

    section: str
    label: str
    recipe: Recipe
    seeds: int = 1
    is_shipped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Something to beat that no recipe trains.

    Attributes:
        section: As of a rung.
        name: Unique among the family's rungs and references.
        label: What the table calls it.
        measure: Score by split on the public data.
    """

    section: str
    name: str
    label: str
    measure: Callable[[], dict[str, float]]


class ExperimentRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One training of a rung.

    Attributes:
        seed: Of initialisation and shuffling.
        scores: By split; validation is that of the best epoch.
        seconds: Of training, validation included.
        epochs: Trained.
        best_epoch: Kept.
        more: What the learner's ``finish`` measured.
    """

    seed: int
    scores: dict[str, float]
    seconds: float
    epochs: int
    best_epoch: int
    more: dict[str, Any] = {}

    def test_scores(self) -> list[float]:
        """The test score, or that of each fold where ``finish`` cross-validated."""
        folds: list[float] = self.more.get("cross_validation", {}).get("folds", [])
        return folds or [self.scores["test"]]


class Speed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How fast a rung's artifact answers on one thread, as ``benchmarks.quality.experiment_speed`` measures it.

    Attributes:
        unit: What is counted, e.g. ``"words"``.
        per_second: So many of them, through the whole scoring path.
        memory_bytes: What the process grew by, from before opening the artifact to its peak.
    """

    unit: str
    per_second: float
    memory_bytes: int


class ExperimentOutcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Describe what is known of a rung or a reference.

    Attributes:
        section: As the rung's.
        label: As the rung's.
        metric: E.g. ``"accuracy"``.
        unit: E.g. ``"%"``.
        settings: ``Recipe.settings()`` of what was trained; empty for a reference.
        parameters: Numbers learned; 0 for a reference.
        threads: CPU threads of the training.
        trials: One per seed; a reference has one, of no seconds.
        speed: Of the artifact, where it was measured.
    """

    section: str
    label: str
    metric: str
    unit: str
    settings: dict[str, Any]
    parameters: int
    threads: int
    trials: list[ExperimentRun]
    speed: Speed | None = None

    def scores(self, split: str) -> list[float]:
        """Return one per seed; on test one per seed and fold."""
        if split == "test":
            return [score for trial in self.trials for score in trial.test_scores()]
        return [trial.scores[split] for trial in self.trials if split in trial.scores]

    def mean(self, split: str) -> float:
        """Over seeds, and folds."""
        return fmean(self.scores(split))

    def spread(self, split: str) -> float:
        """Standard deviation over seeds, and folds; 0 for a single one."""
        scores = self.scores(split)
        return stdev(scores) if len(scores) > 1 else 0.0


Results = Mapping[str, ExperimentOutcome]


def read_results(path: Path) -> dict[str, ExperimentOutcome]:
    """Outcomes by rung; none if there is no file."""
    if not path.exists():
        return {}
    return msgspec.json.decode(path.read_bytes(), type=dict[str, ExperimentOutcome])


def write_results(path: Path, results: Results) -> None:
    """Write aside and rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".tmp")
    aside.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
    aside.replace(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A picture of the results.

    Attributes:
        file: Its name in ``docs/pictures``.
        caption: What it shows.
        draw: Writes it to a path, from all results of the family.
    """

    file: str
    caption: str
    draw: Callable[[Path, Results], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentPlan:
    """A family's rungs; one per family, ``LADDER`` in its ``ladder.py``.

    Attributes:
        family: Its name.
        metric: Of all scores.
        rungs: In the order of the table.
        references: Shown at the head of their sections.
        pictures: Drawn after training.
        shorten: A recipe's short form for ``--quick``: less data where that is much; the epochs are cut anyway.
    """

    family: str
    metric: ScoreMetric
    rungs: tuple[Experiment, ...]
    references: tuple[Reference, ...] = ()
    pictures: tuple[Plot, ...] = ()
    shorten: Callable[[Recipe], Recipe] = lambda recipe: recipe
