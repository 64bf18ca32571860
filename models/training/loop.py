"""The one training loop. It knows no family: a ``Learner`` brings net, batches, loss and metric."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from models.card import AnyCard
from models.errors import TrainingError
from models.training import checkpoint, plots
from models.training.checkpoint import TrainingProgress, TrainingState
from models.training.datasets import Data
from models.training.ending import ENDED, ENDED_POOLING, GO_ON, TrainingEnd, time_left

MIN_CYCLE_STEPS = 10  # a fifth of fewer is no warm-up, and torch divides by zero
OptimizerName = Literal["adamw", "adam", "rmsprop", "momentum", "sgd"]
# Gradient descent, with momentum (Sutskever et al. 2013), RMSProp (Hinton 2012, lecture 6e), Adam (Kingma & Ba 2015),
# AdamW (Loshchilov & Hutter 2019).
OPTIMIZERS: Mapping[OptimizerName, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "rmsprop": torch.optim.RMSprop,
    "momentum": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
    "sgd": torch.optim.SGD,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """Describe how the weights are found.

    Attributes:
        epochs: Most passes over the training data.
        patience: Epochs without a better validation score before stopping.
        batch_size: Instances in one step (words for tagging, see its recipe).
        learning_rate: Peak of the schedule.
        weight_decay: Decoupled with ``"adamw"``; an L2 penalty in the gradient with any other optimiser.
        optimizer: One of ``OPTIMIZERS``.
        is_one_cycle: Warm up and anneal over ``epochs`` instead of a constant rate.
        clip_norm: Bound on the gradient's norm.
    """

    epochs: int
    patience: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.0
    optimizer: OptimizerName = "adamw"
    is_one_cycle: bool = True
    clip_norm: float = 1.0


class Learner(Protocol):
    """A net with the data it learns from; one class per family, in its ``recipe.py``."""

    @property
    def net(self) -> nn.Module:
        """Return what learns; the pooled net once there is one."""

    @property
    def data(self) -> Data:
        """Return what it learns from."""

    def batch_count(self) -> int:
        """Steps in one epoch."""

    def batches(self, rng: np.random.Generator) -> Iterator[Any]:
        """Return one epoch of training batches, in an order drawn from ``rng``."""

    def loss(self, batch: Any) -> Tensor:
        """Mean loss of one batch, a scalar."""

    def score(self, split: str) -> float:
        """Return the metric on ``"train"``, ``"validation"`` or ``"test"``; the net is in evaluation mode."""

    def finish(self, directory: Path, ending: TrainingEnd = GO_ON) -> dict[str, Any]:
        """Calibrate with the best weights loaded, and return what the report should say more.

        Called once more on the pooled learner, which keeps the calibration and measures itself. What takes long may
        be kept in ``directory``, to go on from there, and is left out (``not_done``) where ``ending`` says so.
        """

    def pooled(self) -> "Learner | None":
        """After ``finish``: a fresh learner on train and validation together, calibration kept; ``None``: not wanted.

        Worth it where the newest data are the validation data. Everything was chosen by then, so nothing is chosen on
        what the pooled net has seen.
        """

    def draw(self, directory: Path) -> None:
        """Write the pictures one would want."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Describe how a model of one task is trained.

    Attributes:
        name: The recipe's name; the shipped model trained by it is called the same.
        card: The task.
        summary: One line on the network.
        plan: The loop's numbers.
        network: The net's numbers, a frozen dataclass.
        method: What else the learner wants to know, such as its loss: a frozen dataclass of the family.
        reading: How a user's own data are to be read, by the command line's names; empty: as they say themselves.
        learner: Makes the learner from this recipe, the data's path (``None`` for the public dataset) and a seed.
    """

    name: str
    card: AnyCard
    summary: str
    plan: TrainingPlan
    network: Any
    learner: Callable[["Recipe", Path | None, int], Learner]
    method: Any = None
    reading: Mapping[str, Any] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """Return everything that decides the weights beside data and seed, as plain values."""
        settings: dict[str, Any] = {"name": self.name, "plan": asdict(self.plan), "network": asdict(self.network)}
        settings |= {"method": asdict(self.method)} if self.method is not None else {}
        return settings | ({"reading": dict(self.reading)} if self.reading else {})


@dataclass(frozen=True, slots=True)
class _Run:
    learner: Learner
    plan: TrainingPlan
    seed: int
    state: TrainingState
    is_pooled: bool = False


def seed_everything(seed: int) -> None:
    """Make torch repeatable; same seed, machine and thread count give the same weights."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)


def fit(
    learner: Learner, recipe: Recipe, *, seed: int, directory: Path, quiet: bool = False, ending: TrainingEnd = GO_ON
) -> dict[str, Any]:
    """Train with early stopping on validation, or go on from the last whole epoch in ``directory``.

    Interrupted anywhere and called again, it ends with the weights of the uninterrupted run: shuffling is drawn from
    (seed, epoch) and torch's generator is kept in the checkpoint. Ended before its time, it finishes with the best
    weights so far, says so in the report (``ended``), and still goes on when it is called again.

    Args:
        learner: Net and data.
        recipe: The plan, and what is written into the report.
        seed: Of initialisation (done by the caller) and shuffling.
        directory: Holds checkpoint, weights, ``result.json`` and pictures.
        quiet: No progress bar.
        ending: When to end before the plan does.

    Returns:
        The report, as in ``result.json``. The net holds the best weights.

    Raises:
        TrainingError: If no epoch is whole, or none had a finite validation score.
    """
    run = _start(learner, recipe.plan, seed, directory)
    progress = _loop(run, ending, quiet=quiet)
    _take_best(run, progress)
    more = learner.finish(directory, ending) | _ended(run, progress)
    pooled = None if "ended" in more else learner.pooled()
    if pooled is None:
        return _report(run, recipe, progress, more)
    again = _start(pooled, recipe.plan, seed, directory / "pooled", is_pooled=True)
    second = _loop(again, ending, quiet=quiet)
    if ended := _ended(again, second):
        # Half learned it is worse than the one that is whole.
        return _report(run, recipe, progress, more | ended)
    _take_best(again, second)
    return _report(replace(run, learner=pooled), recipe, progress, more | pooled.finish(directory / "pooled", ending))


def _start(learner: Learner, plan: TrainingPlan, seed: int, directory: Path, *, is_pooled: bool = False) -> _Run:
    directory.mkdir(parents=True, exist_ok=True)
    decayed = [p for p in learner.net.parameters() if p.ndim > 1]
    rest = [p for p in learner.net.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": rest, "weight_decay": 0.0}]
    optimizer = OPTIMIZERS[plan.optimizer](groups, lr=plan.learning_rate, weight_decay=plan.weight_decay)
    schedule = None
    steps = plan.epochs * learner.batch_count()
    if plan.is_one_cycle and steps >= MIN_CYCLE_STEPS:
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, plan.learning_rate, total_steps=steps, pct_start=0.2, cycle_momentum=plan.optimizer != "rmsprop"
        )
    return _Run(learner, plan, seed, TrainingState(learner.net, optimizer, schedule, directory), is_pooled)


def _loop(run: _Run, ending: TrainingEnd, *, quiet: bool) -> TrainingProgress:
    """Epochs until the plan ends, or patience, or it is ended."""
    progress = checkpoint.read(run.state) or TrainingProgress(best=run.learner.data.metric.worst)
    if run.is_pooled and not quiet:
        tqdm.write("once more, on training and validation data together: about as long again")
    while not _is_complete(run, progress) and not ending.is_now(may_begin=not (progress.epoch or run.is_pooled)):
        _epoch(run, progress, quiet=quiet)
        checkpoint.write(run.state, progress)
    return progress


def _is_complete(run: _Run, progress: TrainingProgress) -> bool:
    return progress.epoch >= run.plan.epochs or progress.epoch - progress.best_epoch >= run.plan.patience


def _ended(run: _Run, progress: TrainingProgress) -> dict[str, Any]:
    """Return what the report says of a run that ended before its time: nothing of any other."""
    if _is_complete(run, progress):
        return {}
    half, kept = ENDED_POOLING if run.is_pooled else ENDED
    return {"ended": {"epochs": progress.epoch, "of": run.plan.epochs, "half": half, "kept": kept}}


def _take_best(run: _Run, progress: TrainingProgress) -> None:
    """Load the best weights (pooled: the last)."""
    if not progress.epoch:
        raise TrainingError("no epoch is whole yet, so there is nothing to finish with")
    if not (run.state.directory / checkpoint.BEST_WEIGHTS).exists():
        raise TrainingError(f"no epoch of {progress.epoch} had a finite validation score; lower the learning rate")
    run.learner.net.load_state_dict(torch.load(run.state.directory / checkpoint.BEST_WEIGHTS, weights_only=True))
    run.learner.net.eval()


def _epoch(run: _Run, progress: TrainingProgress, *, quiet: bool) -> None:
    started = time.perf_counter()
    learner, net = run.learner, run.learner.net
    rng = np.random.default_rng((run.seed, progress.epoch))
    net.train()
    total, count = 0.0, 0
    title = f"epoch {progress.epoch + 1}/{run.plan.epochs}"
    with tqdm(learner.batches(rng), title, learner.batch_count(), leave=False, disable=quiet) as bar:
        for batch in bar:
            total += _step(run, batch)
            count += 1
            bar.set_postfix(loss=f"{total / count:.4f}", best=f"{progress.best:.3f}", refresh=False)
    net.eval()
    score = learner.score("validation")
    progress.epoch += 1
    progress.seconds += time.perf_counter() - started
    progress.history.append({"loss": total / max(count, 1), "validation": score})
    if run.is_pooled or learner.data.metric.is_better(score, progress.best):
        progress.best, progress.best_epoch = score, progress.epoch
        checkpoint.save(net.state_dict(), run.state.directory / checkpoint.BEST_WEIGHTS)
    if not quiet:
        metric = learner.data.metric
        # The pooled net has learned from these data: a figure to watch, not to believe.
        seen = "seen " if run.is_pooled else ""
        left = time_left(progress.epoch, run.plan.epochs, progress.seconds)
        tqdm.write(f"{title}  loss {total / count:.4f}  {seen}validation {metric.name} {score:.3f} {metric.unit}{left}")


def _step(run: _Run, batch: Any) -> float:
    run.state.optimizer.zero_grad(set_to_none=True)
    loss = run.learner.loss(batch)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(run.learner.net.parameters(), run.plan.clip_norm)
    run.state.optimizer.step()
    if run.state.schedule is not None:
        run.state.schedule.step()
    return loss.item()


def _report(run: _Run, recipe: Recipe, progress: TrainingProgress, more: dict[str, Any]) -> dict[str, Any]:
    learner, directory = run.learner, run.state.directory
    # ``finish`` may set calibrated buffers: they belong to the weights that are exported.
    checkpoint.save(learner.net.state_dict(), directory / checkpoint.FINAL_WEIGHTS)
    report = {
        "recipe": recipe.settings(),
        "seed": run.seed,
        "metric": asdict(learner.data.metric),
        # The validation score of the net that had not seen it, also where a pooled one ships.
        "scores": {"train": learner.score("train"), "validation": progress.best, "test": learner.score("test")},
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "seconds": round(progress.seconds, 1),
        "trained": time.strftime("%Y-%m-%d", time.gmtime()),
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in learner.net.parameters()),
        "data": learner.data.provenance.record(),
        "history": progress.history,
        **more,
    }
    plots.curves(directory / "curves.png", progress.history, learner.data.metric.name)
    (directory / checkpoint.REPORT).write_text(json.dumps(report, indent=1) + "\n")
    learner.draw(directory)
    return report
