"""Train the view-count model."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from msgspec import convert
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import huber_loss, l1_loss, mse_loss

from models.training import plots
from models.training.ending import GO_ON, TrainingEnd
from models.training.loop import Recipe, TrainingPlan, seed_everything
from models.viewcount import FORECAST
from models.viewcount.train import companions
from models.viewcount.train.data import LearningOptions, ViewData, load
from models.viewcount.train.net import DenseConfig, DenseNet

# Relative errors up to here count squared, larger ones by their size.
HUBER_DELTA = 0.2
# A site read on working days like the public one, and a person's, with spikes.
COMPANIONS = (("example_wp_log_R.csv", 0.5), ("example_wp_log_peyton_manning.csv", 0.1))
Batch = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewMethod:
    """Describe what the learner minimises, and on what.

    Attributes:
        loss: Absolute errors, squared ones, or squared up to a fifth of the level and absolute beyond (Huber 1964).
        first_day_share: Of the loss; the rest is spread evenly over all 28 days.
        companions: Wikipedia series learned from beside the public one, each with the weight of its windows.
            A user's own data are learned alone, without a download.
        is_pooled: Whether the net learns once more from all days before the test, validation included.
    """

    loss: Literal["absolute", "squared", "huber"] = "absolute"
    first_day_share: float = 0.5
    companions: tuple[tuple[str, float], ...] = ()
    is_pooled: bool = True


class ViewCountLearner:
    """Learns from every day's last 56 the next 28, the first of them most."""

    def __init__(self, recipe: Recipe, path: Path | None, seed: int, data: ViewData | None = None) -> None:
        self.recipe, self.path, self.seed = recipe, path, seed
        self.is_calibrated = False
        self.alone: ViewData = load(path, convert(dict(recipe.reading), LearningOptions)) if data is None else data
        self.data = self.alone
        self.plan = recipe.plan
        self.method: ViewMethod = recipe.method or ViewMethod()
        if self.method.companions and path is None:
            names = [name for name, _ in self.method.companions]
            self.data = replace(self.alone, provenance=companions.joined(self.alone.provenance, names))
        self.splits = {split: _tensors(self.data.windows(split)) for split in ("train", "validation", "test")}
        self.net = DenseNet(recipe.network, self.data.assets)
        self.learn_from(self.splits["train"])

    def learn_from(self, train: tuple[Tensor, Tensor]) -> None:
        """Take these windows, and the companions', for training."""
        self.splits["train"] = train
        self.net.measure.fit(train[0])
        views, future, weight = [train[0]], [train[1]], [torch.ones(len(train[0]))]
        for name, each in self.method.companions if self.path is None else ():
            past, then = _tensors(companions.windows(companions.load(name)))
            views.append(past)
            future.append(then)
            weight.append(torch.full((len(past),), each))
        self.lessons = torch.cat(views), torch.cat(future), torch.cat(weight)

    def batch_count(self) -> int:
        """Steps in one epoch."""
        return -(-len(self.lessons[0]) // self.plan.batch_size)

    def batches(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Windows ``(B, 56)`` with their futures ``(B, 28)`` and weights ``(B,)``."""
        views, future, weight = self.lessons
        order = torch.from_numpy(rng.permutation(len(views)))
        for start in range(0, len(order), self.plan.batch_size):
            rows = order[start : start + self.plan.batch_size]
            yield views[rows], future[rows], weight[rows]

    def loss(self, batch: Batch) -> Tensor:
        """Mean weighted loss of the errors in the net's own measure, over the known days."""
        views, future, weight = batch
        errors = self.net.errors(views, future)  # (B, M, 28)
        known = ~errors.isnan()
        errors = errors.nan_to_num()
        zeros = torch.zeros_like(errors)
        losses = {
            "absolute": lambda: l1_loss(errors, zeros, reduction="none"),
            "squared": lambda: mse_loss(errors, zeros, reduction="none"),
            "huber": lambda: huber_loss(errors, zeros, reduction="none", delta=HUBER_DELTA) / HUBER_DELTA,
        }[self.method.loss]()
        weighted = losses * weight[:, None, None]
        first, days = weighted[..., 0].sum() / known[..., 0].sum(), weighted.sum() / known.sum()
        share = self.method.first_day_share
        # Each member has its own weights: the sum keeps a member's step what it would be alone.
        return errors.shape[1] * ((1 - share) * days + share * first)

    def score(self, split: str) -> float:
        """Mean absolute error one day ahead, in views per day."""
        views, future = self.splits[split]
        with torch.inference_mode():
            return float((self.net.estimate(views)[:, 0] - future[:, 0]).abs().mean())

    def finish(self, directory: Path, ending: TrainingEnd = GO_ON) -> dict[str, Any]:
        """Calibrate the interval on validation; report how much of test it covers, and the forecasts of test.

        ``forecast`` holds views per day, one day ahead.
        """
        if not self.is_calibrated:
            self.net.calibrate(*self.splits["validation"], self.data.assets.coverage)
        views, future = self.splits["test"]
        with torch.inference_mode():
            out = self.net(views)
        inside = (out["lower"] <= future) & (future <= out["upper"])
        known = ~future.isnan()
        return {
            "interval": {
                "nominal": self.data.assets.coverage,
                "test_coverage_one_day": round(float(inside[:, 0].float().mean()), 4),
                "test_coverage_all_days": round(float(inside[known].float().mean()), 4),
            },
            "forecast": {
                "real": [round(value) for value in future[:, 0].tolist()],
                "estimated": [round(value) for value in out["forecast"][:, 0].tolist()],
            },
        }

    def pooled(self) -> "ViewCountLearner | None":
        """Return a net that has seen the newest days too, with the interval of the one that had not."""
        if not self.method.is_pooled:
            return None
        seed_everything(self.seed)
        again = type(self)(self.recipe, self.path, self.seed, self.alone)
        for name in ("lower_ratio", "upper_ratio"):
            getattr(again.net, name).copy_(getattr(self.net, name))
        again.is_calibrated = True
        again.learn_from(_tensors(self.data.windows("train", "validation")))
        return again

    def draw(self, directory: Path) -> None:
        """Real in red and estimated in blue over the test days."""
        views, future = self.splits["test"]
        with torch.inference_mode():
            out = {name: tensor[:, 0].double().numpy() for name, tensor in self.net(views).items()}
        days = np.datetime64(self.data.first_day) + np.asarray(self.data.target_days("test"))
        real = future[:, 0].double().numpy()
        plots.forecast(directory / "forecast.png", days, real, out["forecast"], (out["lower"], out["upper"]))


def _tensors(windows: tuple[NDArray[np.float32], NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
    past, future = windows
    return torch.from_numpy(past), torch.from_numpy(future)


# Chosen by rolling-origin error (``models.viewcount.train.rolling_command``): 1,192 views. On the way there, of four
# members, in a quicker copy of this loop: ReLU units and absolute errors 1,287; tanh 1,278; Huber's loss 1,252; the
# level of all 56 days 1,247; R's windows at half the weight 1,209; Peyton Manning's at a tenth 1,189, at a half 1,259.
# In batches of 128, where this one is at 1,199: two layers 1,191, log ratios 1,213, the mean with these 1,196.
RECIPES = (
    Recipe(
        name="viewcount",
        card=FORECAST,
        summary="mean of eight nets of one layer of 100 tanh units on the last 56 days relative to their level",
        plan=TrainingPlan(epochs=25, patience=25, batch_size=64, learning_rate=3e-3, weight_decay=1e-3, clip_norm=10.0),
        network=DenseConfig(level_days=56, gain=2.0, activation="tanh"),
        method=ViewMethod(loss="huber", companions=COMPANIONS),
        learner=ViewCountLearner,
    ),
)
