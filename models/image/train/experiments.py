"""The rungs of the image family: from a fully-connected net to convolutions and self-attention."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from models.image import CLASSIFY
from models.image.train.net import ConvolutionConfig, DenseConfig
from models.image.train.patch_net import PatchAttentionConfig, Position
from models.image.train.recipe import RECIPES, ImageLearner, ImageMethod
from models.training import plots
from models.training.datasets import ACCURACY
from models.training.experiment import Experiment, ExperimentPlan, Plot, Results
from models.training.loop import Recipe, TrainingPlan

IMAGE, IMAGE_VIT = RECIPES
MOVED = ImageMethod()
CNN_PLAN = TrainingPlan(epochs=8, patience=8, batch_size=128, learning_rate=4e-3, weight_decay=0.01)
ATTENTION_PLAN = TrainingPlan(epochs=8, patience=8, batch_size=128, learning_rate=2e-3, weight_decay=0.05)
CNN = ConvolutionConfig(widths=(16, 32, 64))
# Narrow, since without pools every layer works on all 784 pixels.
NARROW = ConvolutionConfig(widths=(8, 16, 32))
PATCHES = PatchAttentionConfig(width=64, layers=3, dropout=0.0, position="axes")
# Small, since over pixels the attention matrix of one head has 614,656 weights.
SMALL = PatchAttentionConfig(width=32, layers=1, heads=2, dropout=0.0, position="axes")
FEW = ImageMethod(pictures=3_000)
# About as many steps for every size as its epochs can give without learning by heart.
SIZES = {1_000: 60, 5_000: 30, 20_000: 14}
ALL_PICTURES = 55_000
OVER = {1: "pixels", 2: "patches of 2 × 2", 4: "patches of 4 × 4", 7: "patches of 7 × 7"}


def _rung(
    section: str, label: str, name: str, network: Any, plan: TrainingPlan, method: ImageMethod = MOVED
) -> Experiment:
    recipe = Recipe(
        name=f"image-{name}",
        card=CLASSIFY,
        summary=f"{section}: {label}",
        plan=plan,
        network=network,
        method=method,
        learner=ImageLearner,
    )
    return Experiment(section=section, label=label, recipe=recipe)


def _pools() -> list[Experiment]:
    cases = (
        (False, False, "neither", "cnn-plain"),
        (True, False, "pooling", "cnn-pool"),
        (False, True, "batch normalisation", "cnn-norm"),
        (True, True, "pooling and batch normalisation", "cnn-pool-norm"),
    )
    return [
        _rung(
            "convolutions with",
            label,
            name,
            replace(NARROW, is_pooled=is_pooled, is_normalised=is_normalised),
            CNN_PLAN,
        )
        for is_pooled, is_normalised, label, name in cases
    ]


def _positions() -> list[Experiment]:
    cases: tuple[tuple[Position, bool, str, str], ...] = (
        ("none", False, "none", "none"),
        ("patch", False, "a vector per patch", "patch"),
        ("axes", False, "a vector per row and per column", "axes"),
        ("none", True, "decay with distance", "decay"),
        ("axes", True, "rows, columns and decay", "axes-decay"),
    )
    return [
        _rung(
            "positions of 4 × 4 patches",
            label,
            f"position-{name}",
            replace(PATCHES, position=position, is_decaying=is_decaying),
            ATTENTION_PLAN,
        )
        for position, is_decaying, label, name in cases
    ]


def _sizes(label: str, name: str, network: Any, plan: TrainingPlan) -> list[Experiment]:
    return [
        _rung(
            "training pictures",
            f"{label}, {size:,}",
            f"{name}-{size}",
            network,
            replace(plan, epochs=epochs, patience=epochs),
            ImageMethod(pictures=size),
        )
        for size, epochs in SIZES.items()
    ]


def _augmentations() -> list[Experiment]:
    cases = (
        (ImageMethod(is_moved=False), "none", "still"),
        (MOVED, "shifted and mirrored", "moved"),
        (ImageMethod(erased=0.25), "and a quarter with a rectangle erased", "erased"),
    )
    return [_rung("augmentation (CNN)", label, f"cnn-{name}", CNN, CNN_PLAN, method) for method, label, name in cases]


def draw_sizes(path: Path, results: Results) -> None:
    """Test accuracy of a CNN and of self-attention against the number of training pictures."""
    lines = {}
    for label, name, largest in (("CNN", "cnn", "image-cnn-moved"), ("self-attention", "vit", "image-position-axes")):
        names = {size: f"image-{name}-{size}" for size in SIZES} | {ALL_PICTURES: largest}
        lines[label] = {size: results[rung].mean("test") for size, rung in names.items() if results[rung].trials}
    plots.lines(path, lines, x="training pictures", y="test accuracy in %", is_log=True)


def shorten(recipe: Recipe) -> Recipe:
    """Return a few pictures of each class."""
    return replace(recipe, method=replace(recipe.method, pictures=256, judged=200))


LADDER = ExperimentPlan(
    family="image",
    metric=ACCURACY,
    rungs=(
        _rung("fully connected", "256 and 128 units", "dense", DenseConfig(), replace(CNN_PLAN, learning_rate=2e-3)),
        *_pools(),
        *_augmentations(),
        *(
            _rung(
                "self-attention over (3,000 pictures)",
                label,
                f"over-{patch}",
                replace(SMALL, patch=patch),
                ATTENTION_PLAN,
                FEW,
            )
            for patch, label in OVER.items()
        ),
        *_positions(),
        _rung(
            "a patch's vector by",
            "two convolutions instead of a matrix",
            "stem",
            replace(PATCHES, stem="convolution"),
            ATTENTION_PLAN,
        ),
        *_sizes("CNN", "cnn", CNN, CNN_PLAN),
        *_sizes("self-attention", "vit", PATCHES, ATTENTION_PLAN),
        Experiment(section="shipped", label="`image`", recipe=IMAGE, is_shipped=True),
        Experiment(section="shipped", label="`image-vit`", recipe=IMAGE_VIT, is_shipped=True),
    ),
    pictures=(
        Plot(
            file="ladder-image-sizes.png",
            caption="Test accuracy of a CNN and of self-attention by the number of training pictures",
            draw=draw_sizes,
        ),
    ),
    shorten=shorten,
)
