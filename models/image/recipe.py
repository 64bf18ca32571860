"""How the image models are trained."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from models import pictures
from models.image import CLASSIFY
from models.image.data import ImageData, load
from models.image.net import ConvolutionConfig, ConvolutionNet, PatchAttentionConfig, PatchAttentionNet
from models.training import Plan, Recipe

MAX_SHIFT = 2
LABEL_SMOOTHING = 0.05


class ImageLearner:
    """Learns classes from shifted and mirrored pictures."""

    def __init__(self, recipe: Recipe, path: Path | None, seed: int) -> None:
        self.data: ImageData = load(path, seed)
        self.plan = recipe.plan
        fit = self.data.splits["train"][0]
        constants = float(fit.mean()), float(max(fit.std(), 1e-3))
        self.net: ConvolutionNet | PatchAttentionNet
        if isinstance(recipe.network, PatchAttentionConfig):
            config = recipe.network
            attending = msgspec.structs.replace(self.data.assets, patch=config.patch, heads=config.heads)
            self.data = ImageData(provenance=self.data.provenance, assets=attending, splits=self.data.splits)
            self.net = PatchAttentionNet(config, attending, *constants)
        else:
            self.net = ConvolutionNet(recipe.network, self.data.assets, *constants)
        # Twice as fast on a CPU, and bfloat16 (the net's weights stay float32) as much again: measured 2.9x.
        self.is_convolution = isinstance(self.net, ConvolutionNet)
        if self.is_convolution:
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
            yield torch.from_numpy(augment(images[rows], rng)), torch.from_numpy(labels[rows])

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Cross-entropy with smoothed labels."""
        images, labels = batch
        with torch.autocast("cpu", torch.bfloat16, enabled=self.is_convolution):
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

    def finish(self) -> dict[str, Any]:
        """Nothing to calibrate."""
        return {}

    def pooled(self) -> None:
        """Not wanted: the validation pictures are a small share of many alike."""

    def draw(self, directory: Path) -> None:
        """The confusion matrix on test."""
        truth = self.data.splits["test"][1]
        pictures.confusion(directory / "confusion.png", truth, self._classes("test"), self.data.assets.classes)


def augment(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Mirror half of the pictures and shift each by up to two pixels; ``(B, C, H, W)`` to the same shape."""
    count, _, height, width = images.shape
    mirrored = np.where(rng.random((count, 1, 1, 1)) < 0.5, images[..., ::-1], images)
    margin = ((0, 0), (0, 0), (MAX_SHIFT, MAX_SHIFT), (MAX_SHIFT, MAX_SHIFT))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(mirrored, margin), (height, width), (2, 3))
    down, right = rng.integers(0, 2 * MAX_SHIFT + 1, (2, count))
    return np.ascontiguousarray(windows[np.arange(count), :, down, right])


RECIPES = (
    Recipe(
        name="image",
        card=CLASSIFY,
        summary="CNN with batch normalisation, three stages of two convolutions",
        plan=Plan(epochs=20, patience=8, batch_size=128, learning_rate=4e-3, weight_decay=0.01),
        network=ConvolutionConfig(),
        learner=ImageLearner,
    ),
    Recipe(
        name="image-vit",
        card=CLASSIFY,
        summary="self-attention over 4 x 4 patches, four layers of four heads",
        plan=Plan(epochs=24, patience=8, batch_size=128, learning_rate=1.5e-3, weight_decay=0.05),
        network=PatchAttentionConfig(),
        learner=ImageLearner,
    ),
)
