"""``python -m benchmarks.oip speed|cost|perf|triton``."""

import json
import sys

import click

from benchmarks.oip import cost as costs
from benchmarks.oip import perf as analyzer
from benchmarks.oip import speed as timing
from benchmarks.oip import triton as oracle
from models.artifact.manifest import MANIFEST_FILE
from models.paths import REPOSITORY
from models.runtime.predictor import open_predictor
from models.runtime.session import open_artifact

FOLDERS = {path.parent.name: path.parent for path in sorted(REPOSITORY.glob(f"models/*/trained/*/{MANIFEST_FILE}"))}
URL = click.option("--url", default="http://127.0.0.1:3000", show_default=True, help="Of the running server.")


@click.group(help=__doc__)
def main() -> None:
    """The commands' common entry."""


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


@main.command(help="Computing time of a request by every way, and what of it is the model's.")
@click.option("--model", "models", multiple=True, default=["viewcount", "image", "image-vit", "tagging"])
@click.option("--rounds", default=30, show_default=True, help="Of a tenth of a second each way.")
@click.option("--write", is_flag=True, help="Keep the results in benchmarks/results.")
def cost(models: tuple[str, ...], rounds: int, write: bool) -> None:
    """Measure, tell, and keep if that is wanted."""
    results = {}
    for model in models:
        results[model] = found = costs.measure(model, rounds)
        click.echo(f"{model:10} " + ", ".join(f"{way}: {micros} µs" for way, micros in found.items()))
    if write:
        costs.write(results)


@main.command(help="Triton's perf_analyzer at concurrency 1 to 64 and with Poisson arrivals.")
@URL
@click.option("--write", is_flag=True, help="Keep the results in benchmarks/results.")
def perf(url: str, write: bool) -> None:
    """Run it, tell, and end with 1 if a request failed."""
    program, results = analyzer.install(), []
    for model in analyzer.MODELS:
        for load, arguments in analyzer.loads():
            results.append(analyzer.run(program, analyzer.address_of(url), model, load, arguments))
            click.echo(results[-1])
    if write:
        analyzer.write(results)
    sys.exit(any(result.failures for result in results))


@main.command(help="A real Triton with the same artifacts, asked the same; it needs Debian's Python 3.11.2.")
@URL
@click.option("--write", is_flag=True, help="Keep the results in benchmarks/results.")
def triton(url: str, write: bool) -> None:
    """Compare, tell, and end with 1 if a difference is not intended."""
    predictors = {name: open_predictor(open_artifact(folder)) for name, folder in FOLDERS.items()}
    with oracle.running() as address:
        oracle.wait(address, predictors, seconds=120)
        cases, differences = oracle.compare(analyzer.address_of(url), address, predictors)
    click.echo(oracle.table(cases, differences))
    if write:
        oracle.write(cases, differences)
    sys.exit(any(one.reason is None for one in differences))


if __name__ == "__main__":
    main()
