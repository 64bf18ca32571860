"""Served answers against torch: ``python -m benchmarks.quality.served_parity --url http://127.0.0.1:3000``.

Needs the finished runs in ``runs/`` (``make train``) beside a running service. For every model it sends the test set,
filled up to 1,000 instances with random requests, and compares each answer with the torch net's own.
"""

import json
import urllib.request
from itertools import islice
from typing import Any

import click
import msgspec
import numpy as np
import torch

from export.certify import read_finished_run, torch_predictor
from models.train.__main__ import RUNS
from models.training.checkpoint import FINAL_WEIGHTS


def ask(url: str, model: str, instances: list[Any]) -> list[dict[str, Any]]:
    """Return the served predictions of a request."""
    request = urllib.request.Request(  # noqa: S310  the operator's own service
        f"{url}/v1/models/{model}/predict",
        msgspec.json.encode({"instances": instances}),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        predictions: list[dict[str, Any]] = json.load(answer)["predictions"]
    return predictions


def differences(served: dict[str, Any], expected: dict[str, Any]) -> tuple[float, bool]:
    """Largest relative difference of the numbers (absolute below one), and whether a word changed."""
    largest, is_changed = 0.0, served.keys() != expected.keys()
    for key, value in expected.items():
        if isinstance(value, np.ndarray | np.generic | float):
            gap = np.abs(np.asarray(served[key]) - value) / np.maximum(1.0, np.abs(value))
            largest = max(largest, float(np.max(gap, initial=0.0)))
        else:
            is_changed |= served[key] != value
    return largest, is_changed


@click.command(help=__doc__)
@click.option("--url", default="http://127.0.0.1:3000", show_default=True)
@click.option("--count", default=1000, show_default=True)
def main(url: str, count: int) -> None:
    """The command line."""
    with urllib.request.urlopen(f"{url}/v1/models", timeout=10) as answer:  # noqa: S310
        models = [model["name"] for model in json.load(answer)["models"]]
    for model in models:
        recipe, path, report = read_finished_run(RUNS / model)
        learner = recipe.learner(recipe, path, report["seed"])
        learner.net.load_state_dict(torch.load(RUNS / model / FINAL_WEIGHTS, weights_only=True))
        learner.net.eval()
        predictor = torch_predictor(learner.net, recipe.card, learner.data)
        rng = np.random.default_rng(11)
        instances = [instance for instance, _ in islice(learner.data.examples("test"), count)]
        from_test = len(instances)
        instances += [recipe.card.random_request(rng, learner.data.assets) for _ in range(count - from_test)]
        served = [p for at in range(0, count, 100) for p in ask(url, model, instances[at : at + 100])]
        found = [differences(*pair) for pair in zip(served, predictor.predict(instances), strict=True)]
        changed = sum(is_changed for _, is_changed in found)
        click.echo(
            f"{model:<10} {count} instances ({from_test} of test): largest difference "
            f"{max(gap for gap, _ in found):.2e}, label changes {changed}"
        )


if __name__ == "__main__":
    main()
