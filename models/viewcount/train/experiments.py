"""The view-count family's ladder: the lecture's questions on OTexts, and what the shipped model adds."""

from dataclasses import replace
from functools import partial
from typing import Any

from models.training.experiment import Experiment, ExperimentPlan, Plot, Reference
from models.training.loop import Recipe, TrainingPlan
from models.viewcount import FORECAST
from models.viewcount.train import baselines
from models.viewcount.train.data import ERROR
from models.viewcount.train.net import DenseConfig
from models.viewcount.train.plots import draw_depth, draw_forecast
from models.viewcount.train.recipe import RECIPES, ViewMethod
from models.viewcount.train.rolling_origin import RollingLearner

SEEDS = 3
SHIPPED = RECIPES[0]

# As in the lecture: standardised values, absolute error, nothing but the next day.
LECTURE = Recipe(
    name="viewcount-lecture",
    card=FORECAST,
    summary="one net of ReLU units on standardised views",
    plan=TrainingPlan(epochs=100, patience=100, batch_size=64, learning_rate=3e-3, clip_norm=10.0),
    network=DenseConfig(measure="raw", members=1),
    method=ViewMethod(first_day_share=1.0),
    learner=RollingLearner,
)
# What one thing at a time is changed of: relative values, so that 2021 is in the range of the years before.
PLAIN = Recipe(
    name="viewcount-plain",
    card=FORECAST,
    summary="one net of one layer of ReLU units on the last 56 days relative to their level",
    plan=TrainingPlan(epochs=40, patience=40, batch_size=64, learning_rate=3e-3, weight_decay=1e-3, clip_norm=10.0),
    network=DenseConfig(level_days=56, members=1),
    method=ViewMethod(),
    learner=RollingLearner,
)
# One member of the shipped model.
MEMBER = replace(
    SHIPPED,
    name="viewcount-members-1",
    summary="one of the shipped model's eight nets",
    network=replace(SHIPPED.network, members=1),
    learner=RollingLearner,
)


def _vary(
    recipe: Recipe,
    name: str,
    *,
    plan: dict[str, Any] | None = None,
    network: dict[str, Any] | None = None,
    method: dict[str, Any] | None = None,
) -> Recipe:
    """Return the recipe under another name, with other numbers."""
    return replace(
        recipe,
        name=f"viewcount-{name}",
        plan=replace(recipe.plan, **plan or {}),
        network=replace(recipe.network, **network or {}),
        method=replace(recipe.method, **method or {}),
    )


def _rungs(section: str, *labelled: tuple[str, Recipe]) -> tuple[Experiment, ...]:
    return tuple(Experiment(section=section, label=label, recipe=recipe, seeds=SEEDS) for label, recipe in labelled)


WINDOW = _rungs(
    "window",
    *(
        (f"linear, {days} day{'s' * (days > 1)}", _vary(LECTURE, f"days-{days}", network={"layers": 0, "days": days}))
        for days in (1, 7, 28, 56)
    ),
)
DEPTH = _rungs(
    "depth",
    *(
        (f"standardised, {layers} × 100 ReLU", _vary(LECTURE, f"depth-{layers}", network={"layers": layers}))
        for layers in (1, 2, 3, 4)
    ),
)
RELATIVE_DEPTH = _rungs(
    "depth on relative values",
    *(
        (
            f"log ratio, {layers} × 100 tanh, companions",
            _vary(
                MEMBER,
                f"relative-{layers}",
                plan={"batch_size": 128},
                network={"layers": layers, "measure": "log"},
                method={"loss": "absolute"},
            ),
        )
        for layers in (1, 2, 3, 4)
    ),
)
WIDTH = _rungs(
    "width",
    *((f"{width} ReLU", _vary(PLAIN, f"width-{width}", network={"width": width})) for width in (10, 100, 1000)),
)
ACTIVATION = _rungs(
    "activation",
    *(
        (name, _vary(PLAIN, f"activation-{name.replace(' ', '-').lower()}", network={"activation": key}))
        for name, key in (
            ("sigmoid", "sigmoid"),
            ("hard sigmoid", "hard sigmoid"),
            ("ReLU", "relu"),
            ("tanh", "tanh"),
        )
    ),
)
LOSS = _rungs(
    "loss",
    *(
        (label, _vary(PLAIN, f"loss-{key}", method={"loss": key}))
        for label, key in (
            ("mean absolute error", "absolute"),
            ("mean squared error", "squared"),
            ("Huber", "huber"),
        )
    ),
)
CONSTANT = {"is_one_cycle": False, "weight_decay": 0.0}
OPTIMISER = _rungs(
    "optimiser",
    ("gradient descent", _vary(PLAIN, "sgd", plan={**CONSTANT, "optimizer": "sgd", "learning_rate": 3e-2})),
    ("momentum", _vary(PLAIN, "momentum", plan={**CONSTANT, "optimizer": "momentum", "learning_rate": 1e-2})),
    ("RMSProp", _vary(PLAIN, "rmsprop", plan={**CONSTANT, "optimizer": "rmsprop", "learning_rate": 1e-3})),
    ("Adam", _vary(PLAIN, "adam", plan={**CONSTANT, "optimizer": "adam", "learning_rate": 1e-3})),
    ("Adam, warm-up and decay", _vary(PLAIN, "adam-cycle", plan={"optimizer": "adam", "weight_decay": 0.0})),
)
# Two layers and a hundred epochs: enough to learn the training days by heart.
LONG = _vary(PLAIN, "long", plan={"epochs": 100, "patience": 100, "weight_decay": 0.0}, network={"layers": 2})
REGULARISATION = _rungs(
    "regularisation",
    ("none", _vary(LONG, "regularised-none")),
    ("L2", _vary(LONG, "regularised-l2", plan={"optimizer": "adam", "weight_decay": 3e-3})),
    ("dropout 0.3", _vary(LONG, "regularised-dropout", network={"dropout": 0.3})),
    (
        "early stopping, the last half year only to stop by",
        _vary(LONG, "regularised-early", plan={"patience": 10}, method={"is_pooled": False}),
    ),
)
REPRESENTATION = _rungs(
    "representation",
    ("standardised", _vary(PLAIN, "seen-standardised", network={"measure": "raw"})),
    ("relative to the level", _vary(PLAIN, "seen-level")),
    ("log ratio to the level", _vary(PLAIN, "seen-log", network={"measure": "log"})),
    ("relative to the same weekday", _vary(PLAIN, "seen-weekday", network={"measure": "weekday"})),
)
TANH = _vary(PLAIN, "step-tanh", network={"activation": "tanh", "gain": 2.0})
STEPS = (
    *_rungs(
        "what the shipped model adds",
        ("one layer of ReLU", _vary(PLAIN, "step-plain")),
        ("tanh", TANH),
        ("and Huber's loss", _vary(TANH, "step-huber", method={"loss": "huber"})),
        ("and Wikipedia's R", _vary(MEMBER, "step-r", method={"companions": SHIPPED.method.companions[:1]})),
        ("and Peyton Manning: one member", MEMBER),
        ("four members", _vary(MEMBER, "members-4", network={"members": 4})),
    ),
    *_rungs(
        "what the shipped model adds",
        ("eight members: `viewcount`, shipped", replace(SHIPPED, learner=RollingLearner)),
    ),
)

LADDER = ExperimentPlan(
    family="viewcount",
    metric=ERROR,
    rungs=(
        *WINDOW,
        *DEPTH,
        *RELATIVE_DEPTH,
        *WIDTH,
        *ACTIVATION,
        *LOSS,
        *OPTIMISER,
        *REGULARISATION,
        *REPRESENTATION,
        *STEPS,
    ),
    references=tuple(
        Reference(section="window", name=f"viewcount-{name}", label=label, measure=measure)
        for name, label, measure in (
            ("last-day", "as yesterday", partial(baselines.days_ago, 1)),
            ("last-week", "as the same day last week", partial(baselines.days_ago, 7)),
            ("holt-winters", "Holt–Winters, weekly", baselines.holt_winters),
            ("holt-winters-log", "Holt–Winters, weekly, on logarithms", partial(baselines.holt_winters, is_log=True)),
        )
    ),
    pictures=(
        Plot(
            file="ladder-viewcount-depth.png",
            caption="Error by depth on the days learned from and on 2021: standardised views, and log ratios",
            draw=partial(draw_depth, standardised="viewcount-depth-{}", relative="viewcount-relative-{}"),
        ),
        Plot(
            file="ladder-viewcount-year.png",
            caption="Real views in red and the best rung's estimate one day ahead in blue, 2021",
            draw=draw_forecast,
        ),
    ),
)
