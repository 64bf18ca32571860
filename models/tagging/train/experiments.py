"""The rungs of the tagging family: from a word alone over windows and an LSTM to self-attention."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from models.tagging import TAG
from models.tagging.train.attention import WordAttentionConfig
from models.tagging.train.net import TaggerConfig
from models.tagging.train.recipe import RECIPES, TaggingLearner, TaggingMethod
from models.training import plots
from models.training.datasets import ACCURACY
from models.training.experiment import Experiment, ExperimentPlan, Plot, Results
from models.training.loop import Recipe, TrainingPlan

(TAGGING,) = RECIPES
PLAN = TrainingPlan(epochs=6, patience=6, batch_size=800, learning_rate=3e-3, weight_decay=0.05)
# One layer shows best what a way of looking around is worth.
ONE = TaggerConfig(embedding=32, width=96, layers=1)
ALONE = replace(ONE, layers=0)
PLAIN = WordAttentionConfig(is_relative=False)


def _rung(section: str, label: str, name: str, network: TaggerConfig) -> Experiment:
    recipe = Recipe(
        name=f"tagging-{name}",
        card=TAG,
        summary=f"{section}: {label}",
        plan=PLAN,
        network=network,
        method=TaggingMethod(),
        learner=TaggingLearner,
    )
    return Experiment(section=section, label=label, recipe=recipe)


def _attention(section: str, label: str, name: str, network: TaggerConfig = ONE, **changes: Any) -> Experiment:
    return _rung(section, label, name, replace(network, attention=replace(network.attention, **changes)))


def shorten(recipe: Recipe) -> Recipe:
    """Return a few sentences."""
    return replace(recipe, method=replace(recipe.method, sentences=100))


WINDOWS = tuple(
    _rung("a window of", f"{size} words", f"window-{size}", replace(ONE, context="window", window=size))
    for size in (3, 5, 9)
)
HEADS = tuple(
    _attention(
        "self-attention, relative positions",
        f"{heads} head{'s' if heads > 1 else ''}",
        f"heads-{heads}",
        heads=heads,
    )
    for heads in (1, 2, 4, 8)
)
POSITIONS = (
    _rung("positions (8 heads)", "none", "position-none", replace(ONE, attention=PLAIN)),
    _rung(
        "positions (8 heads)",
        "sinusoidal",
        "position-sinusoidal",
        replace(ONE, attention=PLAIN, position="sinusoidal"),
    ),
    _rung("positions (8 heads)", "learned", "position-learned", replace(ONE, attention=PLAIN, position="learned")),
    _rung(
        "positions (8 heads)",
        "decay with distance",
        "position-decay",
        replace(ONE, attention=replace(PLAIN, is_decaying=True)),
    ),
    _attention("positions (8 heads)", "relative, and decay with distance", "position-relative-decay", is_decaying=True),
)


def draw_speed(path: Path, results: Results) -> None:
    """Test accuracy against words per second on one thread; a dot's area is the memory."""
    measured = [(outcome, outcome.speed) for outcome in results.values() if outcome.speed and outcome.trials]
    dots = [
        plots.PlotPoint(
            label=outcome.label,
            group=outcome.section.removesuffix(" (8 heads)"),
            x=speed.per_second,
            y=outcome.mean("test"),
            size=speed.memory_bytes / 1e6,
        )
        for outcome, speed in measured
    ]
    plots.dots(path, dots, x="words per second on one thread", y="test accuracy in %", size="MB of memory")


LADDER = ExperimentPlan(
    family="tagging",
    metric=ACCURACY,
    rungs=(
        _rung("each word alone", "its identity", "alone-identity", replace(ALONE, is_spelled=False)),
        _rung("each word alone", "its spelling too", "alone", ALONE),
        *WINDOWS,
        _rung("LSTM", "from both ends", "lstm", replace(ONE, context="recurrent")),
        *HEADS,
        _attention("scores (8 heads)", "additive", "additive", score="additive"),
        _attention(
            "scores (8 heads)",
            "linear, sinusoidal positions",
            "linear",
            replace(ONE, position="sinusoidal"),
            score="linear",
            is_relative=False,
        ),
        *POSITIONS,
        _attention("sees at most (8 heads)", "2 words to each side", "span-2", span=2),
        _attention("sees at most (8 heads)", "5 words to each side", "span-5", span=5),
        _rung("sub-word features (8 heads)", "none", "unspelled", replace(ONE, is_spelled=False)),
        Experiment(section="shipped", label="`tagging`, two layers of 8 heads", recipe=TAGGING, is_shipped=True),
    ),
    pictures=(
        Plot(
            file="ladder-tagging-speed.png",
            caption="Test accuracy of every sequence model against its speed; a dot's area is the memory it takes",
            draw=draw_speed,
        ),
    ),
    shorten=shorten,
)
