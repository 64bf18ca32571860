"""Train a model: ``python -m models.train viewcount --model my-channel --data views.csv``."""

import json
import re
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import torch

from models.datasets import REPOSITORY
from models.errors import DataError, LecternError
from models.registry import FAMILIES
from models.training import Recipe, fit, seed_everything

RUNS = REPOSITORY / "runs"
RUN_FILE = "run.json"
MODEL_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")


def recipes(family: str | None = None) -> dict[str, Recipe]:
    """Every recipe by name, of one family or of all: those of the shipped models, then the other rungs'."""
    names = [f.name for f in FAMILIES if family in (None, f.name)]
    shipped = {recipe.name: recipe for name in names for recipe in import_module(f"models.{name}.recipe").RECIPES}
    rungs = (rung for name in names for rung in import_module(f"models.{name}.ladder").LADDER.rungs)
    return shipped | {rung.recipe.name: rung.recipe for rung in rungs}


def choose_recipe(family: str | None, model: str, wanted: str | None) -> Recipe:
    """The recipe asked for, else the one named as the model, else the family's first.

    Raises:
        click.UsageError: If nothing decides.
    """
    known = recipes(family)
    name = wanted or (model if model in known else next(iter(known)) if family else None)
    if name not in known:
        raise click.UsageError(f"no recipe {name or model!r}; choose --recipe from {', '.join(known)}")
    return known[name]


def train(
    recipe: Recipe, model: str, *, data: Path | None, seed: int, runs: Path = RUNS, quiet: bool = False
) -> dict[str, Any]:
    """Train one model into ``runs/<model>``; the report is also ``result.json`` there."""
    seed_everything(seed)
    learner = recipe.learner(recipe, data, seed)
    start_run(runs / model, recipe, data, seed)
    return fit(learner, recipe, seed=seed, directory=runs / model, quiet=quiet)


def start_run(folder: Path, recipe: Recipe, data: Path | None, seed: int) -> None:
    """Note what a run is, or prove that the one in ``folder`` is the same, so that going on with it makes sense.

    Raises:
        DataError: If ``folder`` holds a run of another recipe, data or seed.
    """
    note = {"recipe": recipe.settings(), "data": str(data) if data else None, "seed": seed}
    text = json.dumps(note, indent=1) + "\n"
    path = folder / RUN_FILE
    if path.exists() and path.read_text() != text:
        raise DataError(
            folder,
            found="a run with another recipe, data or seed",
            expected=f"the same, or no {folder}: remove it",
        )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def read_run(folder: Path) -> tuple[Recipe, Path | None]:
    """The recipe and the data a run was started with."""
    note = json.loads((folder / RUN_FILE).read_text())
    recipe = recipes()[note["recipe"]["name"]]
    return recipe, Path(note["data"]) if note["data"] else None


@click.command(help=__doc__)
@click.argument("family", required=False, type=click.Choice([family.name for family in FAMILIES]))
@click.option("--model", required=True, help="The model's name, e.g. my-channel; the run is kept in runs/<model>.")
@click.option("--recipe", "recipe_name", help="Which of the family's recipes; default: the one named as the model.")
@click.option("--data", type=click.Path(path_type=Path, exists=True), help="Your own data instead of the public set.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
@click.option("--epochs", type=click.IntRange(1), help="Instead of the recipe's.")
@click.option("--threads", default=1, show_default=True, help="CPU threads; the weights depend on it.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def main(
    family: str | None,
    model: str,
    recipe_name: str | None,
    data: Path | None,
    seed: int,
    epochs: int | None,
    threads: int,
    quiet: bool,
) -> None:
    """The command line."""
    if not MODEL_NAME.fullmatch(model):
        raise click.UsageError("a model's name is lower case letters, digits and dashes, at most 40")
    recipe = choose_recipe(family, model, recipe_name)
    if epochs is not None:
        recipe = replace(recipe, plan=replace(recipe.plan, epochs=epochs))
    torch.set_num_threads(threads)
    try:
        report = train(recipe, model, data=data.resolve() if data else None, seed=seed, quiet=quiet)
    except LecternError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo(f"\nstopped; the same command goes on from the last whole epoch in {RUNS / model}", err=True)
        sys.exit(130)
    metric = report["metric"]
    for split, score in report["scores"].items():
        click.echo(f"{split:>10}  {metric['name']} {score:.3f} {metric['unit']}")
    click.echo(f"report and pictures: {RUNS / model}")


if __name__ == "__main__":
    main()
