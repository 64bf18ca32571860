"""Train the image models."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from msgspec import convert
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from models.image import CLASSIFY
from models.image.train.data import ImageData, Split, load, stratified
from models.image.train.net import NETS, ConvolutionConfig, ImageNet
from models.image.train.patch_net import PatchAttentionConfig
from models.reading import HeldOut
from models.training import plots
from models.training.ending import GO_ON, TrainingEnd
from models.training.loop import Recipe, TrainingPlan

MAX_SHIFT = 2
LABEL_SMOOTHING = 0.05
# Sides of an erased rectangle, in pixels, before it is cut at the border.
ERASED_SIDES = (4, 15)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMethod:
    """Describe what the learner sees.

    Attributes:
        is_moved: Whether pictures are mirrored and shifted.
        erased: Share of the pictures in which a rectangle is made noise.
        pictures: How many of the training pictures, as many of each class; ``None`` for all.
        judged: How many of the validation and of the test pictures, likewise.
    """

    is_moved: bool = True
    erased: float = 0.0
    pictures: int | None = None
    judged: int | None = None


class ImageLearner:
    """Learns classes from pictures that look a little different every time."""

    def __init__(self, recipe: Recipe, path: Path | None, seed: int) -> None:
        self.method: ImageMethod = recipe.method
        self.data: ImageData = _prepare(
            load(path, seed, convert(dict(recipe.reading), HeldOut).test), recipe.network, self.method
        )
        self.plan = recipe.plan
        fit = self.data.splits["train"][0]
        constants = float(fit.mean()), float(max(fit.std(), 1e-3))
        self.net: ImageNet = NETS[type(recipe.network)](recipe.network, self.data.assets, *constants)
        # For convolutions twice as fast on a CPU; nothing else has weights of four axes.
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def batch_count(self) -> int:
        """Whole batches only: batch normalisation should not see a remainder of one picture."""
        return max(1, len(self.data.splits["train"][1]) // self.plan.batch_size)

    def batches(self, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented pictures ``(B, C, H, W)`` uint8 with class ids ``(B,)``."""
        images, labels = self.data.splits["train"]
        order = rng.permutation(len(labels))
        size = min(self.plan.batch_size, len(order))
        for start in range(0, self.batch_count() * size, size):
            rows = order[start : start + size]
            yield torch.from_numpy(augment(images[rows], self.method, rng)), torch.from_numpy(labels[rows])

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Cross-entropy with smoothed labels."""
        images, labels = batch
        # The weights stay float32. Measured: half the time, also for attention.
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.net.logits(images)
        return cross_entropy(logits.float(), labels, label_smoothing=LABEL_SMOOTHING)

    def _classes(self, split: str) -> NDArray[np.int64]:
        images = torch.from_numpy(self.data.splits[split][0])
        with torch.inference_mode():
            found = [self.net.logits(images[i : i + 500]).argmax(-1) for i in range(0, len(images), 500)]
        classes: NDArray[np.int64] = torch.cat(found).numpy()
        return classes

    def score(self, split: str) -> float:
        """Accuracy in %."""
        return 100 * float(np.mean(self._classes(split) == self.data.splits[split][1]))

    def finish(self, directory: Path, ending: TrainingEnd = GO_ON) -> dict[str, Any]:
        """Return nothing to calibrate."""
        return {}

    def pooled(self) -> None:
        """Not wanted: the validation pictures are a small share of many alike."""

    def draw(self, directory: Path) -> None:
        """The confusion matrix on test."""
        truth = self.data.splits["test"][1]
        plots.confusion(directory / "confusion.png", truth, self._classes("test"), self.data.assets.classes)


def _prepare(data: ImageData, network: object, method: ImageMethod) -> ImageData:
    """Return the data with what an attending model says of itself, and with no more pictures than wanted."""
    assets = data.assets
    if isinstance(network, PatchAttentionConfig):
        assets = msgspec.structs.replace(assets, patch=network.patch, heads=network.heads)
    sizes = {"train": method.pictures, "validation": method.judged, "test": method.judged}
    splits = {split: _few(part, sizes[split]) for split, part in data.splits.items()}
    return ImageData(provenance=data.provenance, assets=assets, splits=splits)


def _few(part: Split, count: int | None) -> Split:
    images, labels = part
    if count is None or count >= len(labels):
        return part
    _, chosen = stratified(labels, count / len(labels), seed=0)
    return images[chosen], labels[chosen]


def augment(images: NDArray[np.uint8], method: ImageMethod, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Pictures ``(B, C, H, W)`` moved and erased as the method says; the same shape."""
    if method.is_moved:
        images = move(images, rng)
    return erase(images, method.erased, rng) if method.erased else images


def move(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Mirror half of the pictures and shift each by up to two pixels; ``(B, C, H, W)`` to the same shape."""
    count, _, height, width = images.shape
    mirrored = np.where(rng.random((count, 1, 1, 1)) < 0.5, images[..., ::-1], images)
    margin = ((0, 0), (0, 0), (MAX_SHIFT, MAX_SHIFT), (MAX_SHIFT, MAX_SHIFT))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(mirrored, margin), (height, width), (2, 3))
    down, right = rng.integers(0, 2 * MAX_SHIFT + 1, (2, count))
    return np.ascontiguousarray(windows[np.arange(count), :, down, right])


def erase(images: NDArray[np.uint8], share: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Fill a rectangle with noise in a ``share`` of the pictures (Zhong et al. 2017, arXiv:1708.04896)."""
    count, _, height, width = images.shape
    top, tall, left, wide = (
        rng.integers(low, high, (count, 1, 1)) for low, high in ((0, height), ERASED_SIDES, (0, width), ERASED_SIDES)
    )  # each (B, 1, 1)
    rows, columns = np.arange(height)[:, None], np.arange(width)
    hit = (rows >= top) & (rows < top + tall) & (columns >= left) & (columns < left + wide)  # (B, H, W)
    hit &= rng.random((count, 1, 1)) < share
    noise = rng.integers(0, 256, images.shape, np.uint8)
    return np.where(hit[:, None], noise, images)


RECIPES = (
    Recipe(
        name="image",
        card=CLASSIFY,
        summary="CNN with batch normalisation, three stages of two convolutions",
        plan=TrainingPlan(epochs=20, patience=8, batch_size=128, learning_rate=4e-3, weight_decay=0.01),
        network=ConvolutionConfig(),
        method=ImageMethod(),
        learner=ImageLearner,
    ),
    Recipe(
        name="image-vit",
        card=CLASSIFY,
        summary="self-attention over 4 x 4 patches made by two convolutions, four layers of four heads",
        plan=TrainingPlan(epochs=50, patience=50, batch_size=128, learning_rate=2e-3, weight_decay=0.05),
        network=PatchAttentionConfig(stem="convolution", dropout=0.0, skip_rate=0.1),
        method=ImageMethod(erased=0.25),
        learner=ImageLearner,
    ),
)
