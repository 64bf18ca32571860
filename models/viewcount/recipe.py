"""How the view-count model is trained."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models import pictures
from models.training import Plan, Recipe, seed_everything
from models.viewcount import FORECAST
from models.viewcount.data import ViewData, load
from models.viewcount.net import DenseConfig, DenseNet

# Rolling-origin validation on 2019-07..2020-12 (three half years), error one day ahead: one net 1,340 views with
# equal days and 1,295 with half of the loss on the first; eight members 1,284; two layers 1,318.
FIRST_DAY_SHARE = 0.5


class ViewCountLearner:
    """Learns 28 days at once from every day's last 56, by relative absolute error, half of it on the first day."""

    def __init__(self, recipe: Recipe, path: Path | None, seed: int) -> None:
        self.recipe, self.path, self.seed = recipe, path, seed
        self.is_calibrated = False
        self.data: ViewData = load(path)
        self.plan = recipe.plan
        self.net = DenseNet(recipe.network, self.data.assets)
        self.splits = {split: _tensors(self.data.windows(split)) for split in ("train", "validation", "test")}

    def batch_count(self) -> int:
        """Steps in one epoch."""
        return -(-len(self.splits["train"][0]) // self.plan.batch_size)

    def batches(self, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Windows ``(B, 56)`` with their futures ``(B, 28)``."""
        views, future = self.splits["train"]
        order = torch.from_numpy(rng.permutation(len(views)))
        for start in range(0, len(order), self.plan.batch_size):
            rows = order[start : start + self.plan.batch_size]
            yield views[rows], future[rows]

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean absolute error relative to each window's level, over the known days."""
        views, future = batch
        known = ~future.isnan()
        truth, level = future.nan_to_num().unsqueeze(1), self.net.level(views).unsqueeze(1)
        errors = (self.net.members(views) - truth).abs() / level  # (B, M, 28)
        days = errors.transpose(1, 2)[known].mean()
        # Each member has its own weights: the sum keeps a member's step what it would be alone.
        members = errors.shape[1]
        return members * ((1 - FIRST_DAY_SHARE) * days + FIRST_DAY_SHARE * errors[..., 0].mean())

    def score(self, split: str) -> float:
        """Mean absolute error one day ahead, in views per day."""
        views, future = self.splits[split]
        with torch.inference_mode():
            return float((self.net.estimate(views)[:, 0] - future[:, 0]).abs().mean())

    def finish(self) -> dict[str, Any]:
        """Calibrate the interval on validation; report how much of test it covers, one and all days ahead."""
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
            }
        }

    def pooled(self) -> "ViewCountLearner":
        """A net that has seen the newest year too, with the interval of the one that had not."""
        seed_everything(self.seed)
        again = ViewCountLearner(self.recipe, self.path, self.seed)
        for name in ("lower_ratio", "upper_ratio"):
            getattr(again.net, name).copy_(getattr(self.net, name))
        again.is_calibrated = True
        again.splits["train"] = _tensors(self.data.windows("train", "validation"))
        return again

    def draw(self, directory: Path) -> None:
        """Real in red and estimated in blue over the test days."""
        views, future = self.splits["test"]
        with torch.inference_mode():
            out = {name: tensor[:, 0].double().numpy() for name, tensor in self.net(views).items()}
        days = np.datetime64(self.data.first_day) + np.asarray(self.data.target_days("test"))
        real = future[:, 0].double().numpy()
        pictures.forecast(directory / "forecast.png", days, real, out["forecast"], (out["lower"], out["upper"]))


def _tensors(windows: tuple[NDArray[np.float32], NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
    past, future = windows
    return torch.from_numpy(past), torch.from_numpy(future)


RECIPES = (
    Recipe(
        name="viewcount",
        card=FORECAST,
        summary="mean of eight nets of one layer of 100 ReLU units on the last 56 days relative to their level",
        plan=Plan(epochs=40, patience=40, batch_size=64, learning_rate=3e-3, weight_decay=1e-3, clip_norm=10.0),
        network=DenseConfig(),
        learner=ViewCountLearner,
    ),
)
