"""Measure how fast a family's experiments answer: ``python -m benchmarks.quality.experiment_speed tagging``.

Needs the finished runs of ``python -m models.train.experiments``. Each rung is exported and certified, then opened in
a process of its own on one thread and asked for the test set through the ``Predictor``, as the service asks. The rungs
take turns, three rounds, and the median counts. Results go to ``docs/ladder`` and into ``docs/families.md``. Nothing
else should run meanwhile.
"""

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import click
import msgspec
import psutil
from tqdm import tqdm

from export.certify import artifact_folder, export_run
from models.artifact.manifest import MANIFEST_FILE
from models.paths import REPOSITORY
from models.registry import FAMILIES
from models.runtime.predictor import open_predictor
from models.runtime.session import open_artifact
from models.train.__main__ import RUNS
from models.train.experiments import DOCS, load_ladder, run_name
from models.training import experiment_report
from models.training.experiment import Experiment, Speed, read_results, write_results

BATCH = 16
ROUNDS = 3


def certified(family: str, rung: Experiment) -> Path:
    """Return the artifact of a rung: the shipped one, or its run exported once, beside it."""
    if rung.is_shipped:
        return artifact_folder(family, rung.recipe.name)
    name = run_name(rung.recipe, seed=0)
    folder = RUNS / "rungs" / name / "artifact"
    if not (folder / MANIFEST_FILE).exists():
        export_run(name, "1.0.0", runs=RUNS / "rungs", target=folder)
    return folder


def measure(artifact: Path, requests: Path) -> dict[str, Any]:
    """Seconds to answer all requests and bytes the process grew by at its peak; called in a process of its own."""
    process = psutil.Process()
    before = process.memory_info().rss
    predictor = open_predictor(open_artifact(artifact))
    instances = msgspec.json.decode(requests.read_bytes(), type=list[predictor.card.instance])  # type: ignore[name-defined]
    predictor.predict(instances[:BATCH])
    started = perf_counter()
    for start in range(0, len(instances), BATCH):
        predictor.predict(instances[start : start + BATCH])
    seconds = perf_counter() - started
    peak = max(process.memory_info().rss, _peak_bytes())
    return {"seconds": seconds, "memory_bytes": peak - before}


def _peak_bytes() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def ask(artifact: Path, requests: Path) -> dict[str, Any]:
    """``measure`` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.quality.experiment_speed", "--measure", str(artifact), str(requests)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)  # noqa: S603  our own
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def compare(family: str, folder: Path) -> dict[str, Speed]:
    """Return the speed of every rung that has a run."""
    ladder = load_ladder(family)
    rungs = {rung.recipe.name: rung for rung in ladder.rungs}
    recipe = ladder.rungs[0].recipe
    card, data = recipe.card, recipe.learner(recipe, None, 0).data
    instances = [instance for instance, _ in data.examples("test")]
    requests = folder / "requests.json"
    requests.write_bytes(msgspec.json.encode(instances))
    count = sum(card.cost(card.encode(instance, data.assets)) for instance in instances)
    artifacts = {name: certified(family, rung) for name, rung in tqdm(rungs.items(), "export")}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in artifacts}
    for _ in tqdm(range(ROUNDS), "round"):
        for name, artifact in artifacts.items():
            found[name].append(ask(artifact, requests))
    return {
        name: Speed(
            unit=card.budget.unit,
            per_second=round(count / median(one["seconds"] for one in rounds)),
            memory_bytes=round(median(one["memory_bytes"] for one in rounds)),
        )
        for name, rounds in found.items()
    }


@click.command(help=__doc__)
@click.argument("family", required=False, type=click.Choice([family.name for family in FAMILIES]))
@click.option("--measure", "one", nargs=2, type=click.Path(path_type=Path), hidden=True)
def main(family: str | None, one: tuple[Path, Path] | None) -> None:
    """The command line."""
    if one is not None:
        click.echo(json.dumps(measure(*one)))
        return
    if family is None:
        raise click.UsageError("which family?")
    path = DOCS / "ladder" / f"{family}.json"
    results = read_results(path)
    with TemporaryDirectory() as folder:
        for name, speed in compare(family, Path(folder)).items():
            results[name] = msgspec.structs.replace(results[name], speed=speed)
            click.echo(f"{name:<32} {speed.per_second:>10,.0f} {speed.unit}/s  {speed.memory_bytes / 1e6:6.1f} MB")
    write_results(path, results)
    experiment_report.write(load_ladder(family), path, DOCS)


if __name__ == "__main__":
    main()
