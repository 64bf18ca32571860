"""Train every rung of a family and write what came out: ``python -m models.train.experiments tagging``.

Results go to ``docs/ladder/<family>.json``, and from there into the table and the pictures of ``docs/families.md``.
Called again, it trains what is missing or has other settings now, and goes on where it was stopped.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, replace
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

import click
import msgspec
import torch
from tqdm import tqdm

from models.artifact.manifest import MANIFEST_FILE, from_bytes
from models.errors import LecternError
from models.paths import REPOSITORY
from models.registry import FAMILIES
from models.train.__main__ import RUNS, train
from models.training import experiment_report
from models.training.datasets import ScoreMetric
from models.training.experiment import (
    Experiment,
    ExperimentOutcome,
    ExperimentPlan,
    ExperimentRun,
    Reference,
    Results,
    read_results,
    write_results,
)
from models.training.loop import Recipe

DOCS = REPOSITORY / "docs"
REPORTED = ("cross_validation", "forecast", "interval", "rolling_origin", "unknown_words")


@dataclass(frozen=True, slots=True)
class ExperimentTask:
    """A rung of a family to be trained with one seed."""

    family: str
    rung: str
    seed: int
    is_quick: bool
    runs: Path


def load_ladder(family: str) -> ExperimentPlan:
    """Return the ladder of a family."""
    ladder: ExperimentPlan = import_module(f"models.{family}.train.experiments").LADDER
    return ladder


def recipe_of(ladder: ExperimentPlan, rung: Experiment, *, is_quick: bool) -> Recipe:
    """Return how a rung is trained; quickly means for one epoch on little data."""
    if not is_quick:
        return rung.recipe
    short = ladder.shorten(rung.recipe)
    return replace(short, plan=replace(short.plan, epochs=1))


def plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as JSON has them."""
    found: dict[str, Any] = json.loads(json.dumps(settings))
    return found


def run_name(recipe: Recipe, seed: int) -> str:
    """Return the folder of a rung's run in ``runs/rungs``; another one when its settings change."""
    digest = hashlib.sha256(json.dumps(recipe.settings()).encode()).hexdigest()[:8]
    return f"{recipe.name}-{seed}-{digest}"


def run_task(task: ExperimentTask, *, quiet: bool = True) -> tuple[ExperimentRun, int]:
    """Train, or go on; the trial and the number of parameters."""
    torch.set_num_threads(1)
    ladder = load_ladder(task.family)
    rung = next(rung for rung in ladder.rungs if rung.recipe.name == task.rung)
    recipe = recipe_of(ladder, rung, is_quick=task.is_quick)
    name = run_name(recipe, task.seed)
    report = train(recipe, name, data=None, seed=task.seed, runs=task.runs / "rungs", quiet=quiet)
    trial = ExperimentRun(
        seed=task.seed,
        scores={split: round(score, 4) for split, score in report["scores"].items()},
        seconds=report["seconds"],
        epochs=report["epochs"],
        best_epoch=report["best_epoch"],
        more={key: report[key] for key in REPORTED if key in report and (key != "forecast" or task.seed == 0)},
    )
    return trial, report["parameters"]


def run_tasks(tasks: list[ExperimentTask], jobs: int) -> Generator[tuple[ExperimentTask, ExperimentRun, int]]:
    """Trained tasks as they finish, ``jobs`` at a time, each on one thread."""
    if jobs == 1:
        for task in tasks:
            yield task, *run_task(task, quiet=False)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(run_task, task): task for task in tasks}
        try:
            for future in as_completed(futures):
                yield futures[future], *future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def start(ladder: ExperimentPlan, old: Results, *, is_quick: bool) -> dict[str, ExperimentOutcome]:
    """Return what is known already, in the ladder's order: trials of the same settings, shipped models, references."""
    results = {}
    for reference in ladder.references:
        results[reference.name] = old.get(reference.name) or _measure(reference, ladder.metric)
    for rung in ladder.rungs:
        name = rung.recipe.name
        if rung.is_shipped and not is_quick:
            speed = old[name].speed if name in old else None
            results[name] = msgspec.structs.replace(_shipped(ladder.family, rung), speed=speed)
            continue
        settings = plain(recipe_of(ladder, rung, is_quick=is_quick).settings())
        known = old.get(name)
        is_same = known is not None and known.settings == settings
        results[name] = ExperimentOutcome(
            section=rung.section,
            label=rung.label,
            metric=ladder.metric.name,
            unit=ladder.metric.unit,
            settings=settings,
            parameters=known.parameters if known and is_same else 0,
            threads=1,
            trials=[trial for trial in known.trials if trial.seed < rung.seeds] if known and is_same else [],
            speed=known.speed if known and is_same else None,
        )
    return results


def _measure(reference: Reference, metric: ScoreMetric) -> ExperimentOutcome:
    started = perf_counter()
    scores = {split: round(score, 4) for split, score in reference.measure().items()}
    seconds = round(perf_counter() - started, 1)
    return ExperimentOutcome(
        section=reference.section,
        label=reference.label,
        metric=metric.name,
        unit=metric.unit,
        settings={},
        parameters=0,
        threads=1,
        trials=[ExperimentRun(seed=0, scores=scores, seconds=seconds, epochs=0, best_epoch=0)],
    )


def _shipped(family: str, rung: Experiment) -> ExperimentOutcome:
    """Return the outcome a shipped model's manifest records."""
    path = REPOSITORY / "models" / family / "trained" / rung.recipe.name / MANIFEST_FILE
    manifest = from_bytes(path.read_bytes(), path)
    training, score = manifest.training, manifest.certificate.score
    trial = ExperimentRun(
        seed=training.seed,
        scores=training.scores,
        seconds=training.seconds,
        epochs=training.epochs,
        best_epoch=0,
        more={key: value for key, value in training.report.items() if key in REPORTED},
    )
    return ExperimentOutcome(
        section=rung.section,
        label=rung.label,
        metric=score.metric,
        unit=score.unit,
        settings=training.recipe,
        parameters=training.parameters,
        threads=1,
        trials=[trial],
    )


def missing(ladder: ExperimentPlan, results: Results, only: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """Rungs and seeds without a trial."""
    for rung in ladder.rungs:
        name = rung.recipe.name
        known = {trial.seed for trial in results[name].trials}
        if (not only or name in only) and not (rung.is_shipped and known):
            yield from ((name, seed) for seed in range(rung.seeds) if seed not in known)


def climb(ladder: ExperimentPlan, *, docs: Path, runs: Path, jobs: int, only: tuple[str, ...], is_quick: bool) -> Path:
    """Train what is missing, note each trial at once, and write the page; the path of the results."""
    path = docs / "ladder" / f"{ladder.family}.json"
    results = start(ladder, read_results(path), is_quick=is_quick)
    wanted = [(name, 0 if is_quick else seed) for name, seed in missing(ladder, results, only)]
    tasks = [ExperimentTask(ladder.family, name, seed, is_quick, runs) for name, seed in dict.fromkeys(wanted)]
    with closing(run_tasks(tasks, jobs)) as done, tqdm(total=len(tasks), unit="training") as bar:
        for task, trial, parameters in done:
            known = results[task.rung]
            trials = sorted([*known.trials, trial], key=lambda trial: trial.seed)
            results[task.rung] = msgspec.structs.replace(known, trials=trials, parameters=parameters)
            write_results(path, results)
            test = results[task.rung].mean("test")
            bar.set_description(f"{task.rung} {test:.2f} {known.unit}", refresh=False)
            bar.update()
    write_results(path, results)
    experiment_report.write(ladder, path, docs)
    return path


@click.command(help=__doc__)
@click.argument("family", type=click.Choice([family.name for family in FAMILIES]))
@click.option("--rung", "only", multiple=True, help="Train these rungs only; may be given again.")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1), help="Trainings at a time, a core each.")
@click.option("--quick", is_flag=True, help="One epoch on little data into runs/quick: does every rung train?")
def main(family: str, only: tuple[str, ...], jobs: int, quick: bool) -> None:
    """The command line."""
    ladder = load_ladder(family)
    unknown = set(only) - {rung.recipe.name for rung in ladder.rungs}
    if unknown:
        names = ", ".join(rung.recipe.name for rung in ladder.rungs)
        raise click.UsageError(f"no rung {min(unknown)!r}; the rungs are {names}")
    docs, runs = DOCS, RUNS
    if quick:
        docs = runs = RUNS / "quick" / family
        shutil.rmtree(docs, ignore_errors=True)
    try:
        path = climb(ladder, docs=docs, runs=runs, jobs=jobs, only=only, is_quick=quick)
    except LecternError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo("\nstopped; the same command goes on from the last whole epoch", err=True)
        sys.exit(130)
    click.echo(f"results: {path}")
    click.echo(f"table and pictures: {docs / experiment_report.PAGE}")


if __name__ == "__main__":
    main()
