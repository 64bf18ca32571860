"""Train a model: ``python -m models.train viewcount --model my-channel --data views.csv``."""

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from msgspec import Struct

from models.errors import DataError, LecternError
from models.graph.train.molecule_data import MoleculeOptions
from models.paths import REPOSITORY
from models.reading import DataOption, HeldOut, data_options
from models.registry import FAMILIES
from models.training.ending import GO_ON, TrainingEnd, ending
from models.training.loop import Recipe, TrainingPlan, fit, seed_everything
from models.viewcount.train.data import LearningOptions

RUNS = REPOSITORY / "runs"
# What can be said of how to read own data, by family.
READINGS: Mapping[str, type[Struct]] = {
    "viewcount": LearningOptions,
    "tagging": HeldOut,
    "image": HeldOut,
    "graph": MoleculeOptions,
}
RUN_FILE = "run.json"
MODEL_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")


def recipes(family: str | None = None) -> dict[str, Recipe]:
    """Return every recipe by name, of one family or of all: those of the shipped models, then the other rungs'."""
    names = [f.name for f in FAMILIES if family in (None, f.name)]
    shipped = {recipe.name: recipe for name in names for recipe in import_module(f"models.{name}.train.recipe").RECIPES}
    rungs = (rung for name in names for rung in import_module(f"models.{name}.train.experiments").LADDER.rungs)
    return shipped | {rung.recipe.name: rung.recipe for rung in rungs}


def choose_recipe(family: str | None, model: str, wanted: str | None) -> Recipe:
    """Return the recipe asked for, else the one named as the model, else the family's first.

    Raises:
        click.UsageError: If nothing decides.
    """
    known = recipes(family)
    name = wanted or (model if model in known else next(iter(known)) if family else None)
    if name not in known:
        raise click.UsageError(f"no recipe {name or model!r}; choose --recipe from {', '.join(known)}")
    return known[name]


class FinishedRun(NamedTuple):
    """Describe what a run was started with."""

    recipe: Recipe
    data: Path | None
    seed: int


def train(
    recipe: Recipe,
    model: str,
    *,
    data: Path | None,
    seed: int,
    runs: Path = RUNS,
    quiet: bool = False,
    ending: TrainingEnd = GO_ON,
) -> dict[str, Any]:
    """Train one model into ``runs/<model>``; the report is also ``result.json`` there."""
    seed_everything(seed)
    learner = recipe.learner(recipe, data, seed)
    origin = learner.data.provenance
    for note in origin.notes:
        click.echo(f"{origin.name}: {note}", err=True)
    start_run(runs / model, recipe, data, seed)
    return fit(learner, recipe, seed=seed, directory=runs / model, quiet=quiet, ending=ending)


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


def read_run(folder: Path) -> FinishedRun:
    """Return what a run was started with.

    Raises:
        DataError: If there is none.
    """
    path = folder / RUN_FILE
    if not path.exists():
        raise DataError(folder, found="no run", expected="one that was begun: train first")
    note = json.loads(path.read_text())
    recipe = as_trained(recipes()[note["recipe"]["name"]], note["recipe"])
    return FinishedRun(recipe, Path(note["data"]) if note["data"] else None, note["seed"])


def as_trained(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """Return the recipe with what a run's own settings changed of it: its plan, and how its data were read."""
    return replace(recipe, plan=TrainingPlan(**settings["plan"]), reading=settings.get("reading", {}))


def reading_options() -> Iterator[click.Option]:
    """Yield an option of the command line for each way to read own data that a family has."""
    found: dict[str, tuple[list[str], DataOption]] = {}
    for family, options in READINGS.items():
        for saying in data_options(options):
            found.setdefault(saying.name, ([], saying))[0].append(family)
    for families, saying in found.values():
        choice = click.Choice(saying.choices) if saying.choices else None
        kind = click.Path(exists=True) if saying.is_path else choice
        yield click.Option([saying.option], type=kind, help=f"{', '.join(families)}: {saying.text}")


def reading_of(recipe: Recipe, data: Path | None, given: Mapping[str, str | None]) -> dict[str, str]:
    """Return what was said of how to read own data; paths from the data on, so that both can be moved together.

    Raises:
        click.UsageError: If it is nothing that the recipe's family knows, or names a file beside no data.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    options = READINGS.get(recipe.card.family)
    known = {saying.name: saying for saying in data_options(options)} if options else {}
    for name in chosen.keys() - known.keys():
        raise click.UsageError(f"--{name.replace('_', '-')} says nothing to {recipe.card.family}")
    for name in [name for name in chosen if known[name].is_path]:
        if data is None:
            raise click.UsageError(f"{known[name].option} is for your own data: give --data, too")
        chosen[name] = os.path.relpath(Path(chosen[name]).resolve(), data)
    return chosen


def finish_run(model: str, ending: TrainingEnd, *, quiet: bool) -> dict[str, Any]:
    """End a run with what it has; raises as ``read_run`` and ``train``."""
    run = read_run(RUNS / model)
    return train(run.recipe, model, data=run.data, seed=run.seed, runs=RUNS, quiet=quiet, ending=ending)


def finishing(model: str) -> str:
    """Return the command that ends a run with what it has."""
    return f".venv/bin/python -m models.train --model {model} --finish"


@click.command(help=__doc__)
@click.argument("family", required=False, type=click.Choice([family.name for family in FAMILIES]))
@click.option("--model", required=True, help="The model's name, e.g. my-channel; the run is kept in runs/<model>.")
@click.option("--recipe", "recipe_name", help="Which of the family's recipes; default: the one named as the model.")
@click.option("--data", type=click.Path(path_type=Path, exists=True), help="Your own data instead of the public set.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
@click.option("--epochs", type=click.IntRange(1), help="Instead of the recipe's.")
@click.option(
    "--minutes", type=click.FloatRange(0, min_open=True), help="End after the epoch in which so many are over."
)
@click.option("--finish", "is_finish", is_flag=True, help="End the run of this name now, with the best it has.")
@click.option("--threads", default=1, show_default=True, help="CPU threads; the weights depend on it.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def main(
    family: str | None,
    model: str,
    recipe_name: str | None,
    data: Path | None,
    seed: int,
    epochs: int | None,
    minutes: float | None,
    is_finish: bool,
    threads: int,
    quiet: bool,
    **reading: str | None,
) -> None:
    """The command line."""
    if not MODEL_NAME.fullmatch(model):
        raise click.UsageError("a model's name is lower case letters, digits and dashes, at most 40")
    torch.set_num_threads(threads)
    end = ending(is_finish=is_finish, minutes=minutes)
    with failing(model):
        if is_finish:
            report = finish_run(model, end, quiet=quiet)
        else:
            recipe = choose_recipe(family, model, recipe_name)
            path = data.resolve() if data else None
            recipe = replace(recipe, reading=reading_of(recipe, path, reading))
            if epochs is not None:
                recipe = replace(recipe, plan=replace(recipe.plan, epochs=epochs))
            report = train(recipe, model, data=path, seed=seed, quiet=quiet, ending=end)
    describe(report, model)


main.params += reading_options()


@contextmanager
def failing(model: str) -> Iterator[None]:
    """Turn errors into one line, and Ctrl-C into how to go on or to end."""
    try:
        yield
    except LecternError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo(f"\nstopped; the same command goes on from the last whole epoch in {RUNS / model}", err=True)
        click.echo(f"to end it with the best it has: {finishing(model)}", err=True)
        sys.exit(130)


def describe(report: Mapping[str, Any], model: str) -> None:
    """Say how a run ended, and what comes next."""
    metric = report["metric"]
    for split, score in report["scores"].items():
        click.echo(f"{split:>10}  {metric['name']} {score:.3f} {metric['unit']}")
    if "ended" in report:
        click.echo("ended after {epochs} of {of} epochs {half}: {kept} ships".format(**report["ended"]))
    if "not_done" in report:
        click.echo(f"not done: {report['not_done']}")
    click.echo(f"report and pictures: {RUNS / model}\nto certify it: make export MODEL={model}")


if __name__ == "__main__":
    main()
