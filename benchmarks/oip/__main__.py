"""``python -m benchmarks.oip fuzz|speed|perf|triton``."""

import json
import sys
from collections import Counter

import click
from tqdm import tqdm

from benchmarks.oip import fuzz as fuzzing
from benchmarks.oip import speed as timing
from models.datasets import REPOSITORY
from models.manifest import MANIFEST_FILE
from models.predictor import open_predictor
from models.session import open_artifact

FOLDERS = {path.parent.name: path.parent for path in sorted(REPOSITORY.glob(f"models/*/trained/*/{MANIFEST_FILE}"))}
URL = click.option("--url", default="http://127.0.0.1:3000", show_default=True, help="Of the running server.")


@click.group(help=__doc__)
def main() -> None:
    """The commands' common entry."""


@main.command(help="Nearly right requests, of which none may be answered with a 5xx.")
@URL
@click.option("--cases", default=12_000, show_default=True, help="Of all models together.")
@click.option("--seed", default=0, show_default=True, help="Case n of a model and a seed is always the same.")
def fuzz(url: str, cases: int, seed: int) -> None:
    """Ask, tell, and end with 1 if a promise was broken."""
    each = -(-cases // len(FOLDERS))
    statuses, failures = Counter[int](), list[str]()
    for name, folder in tqdm(FOLDERS.items(), unit="model"):
        report = fuzzing.run(url, name, open_predictor(open_artifact(folder)), each, seed)
        statuses += report.statuses
        failures += report.failures
    click.echo(
        f"{statuses.total()} cases: " + ", ".join(f"{count} x {code}" for code, count in sorted(statuses.items()))
    )
    click.echo("\n".join(failures[:20]) or "0 failures")
    sys.exit(bool(failures))


@main.command(help="Requests per second in binary form, in JSON and by /v1.")
@click.option("--model", "models", multiple=True, default=["image"], show_default=True, help="May be repeated.")
@click.option("--connections", default=16, show_default=True, help="Kept open.")
@click.option("--rounds", default=9, show_default=True, help="Each way once per round.")
@click.option("--seconds", default=4, show_default=True, help="Of each way in a round.")
@click.option("--write", is_flag=True, help="Keep the results in benchmarks/results.")
def speed(models: tuple[str, ...], connections: int, rounds: int, seconds: int, write: bool) -> None:
    """Time, tell, and keep if that is wanted."""
    results = []
    for model in models:
        results.append(timing.run(model, connections, rounds, seconds))
        click.echo(json.dumps({key: value for key, value in results[-1].items() if key != "rounds"}))
    if write:
        timing.write(results)


if __name__ == "__main__":
    main()
