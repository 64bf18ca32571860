"""Requests per second of one model in the protocol's two forms and by ``/v1``: ``python -m benchmarks.oip speed``.

The server has one core and wrk the other. The three take turns within a round, so that what else the machine does is
the same for all; ratios are of one round, and their median is reported.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np

from benchmarks.harness.machine import commit, describe
from benchmarks.harness.measure import LoadClient, settle
from benchmarks.harness.peers import LECTERN
from benchmarks.harness.protocols import JSON, ProtocolCall
from benchmarks.harness.servers import install_artifacts, serving
from benchmarks.oip.requests import Request, feeds, of_tensors
from models.paths import REPOSITORY
from models.runtime.predictor import Predictor, open_predictor
from models.runtime.session import open_artifact

PLACE = REPOSITORY / "benchmarks" / "results" / "oip_speed.json"
BODIES = 64
SEED = 7
WAYS = ("v1 JSON", "v2 JSON", "v2 binary")


def calls(model: str, predictor: Predictor) -> dict[str, list[ProtocolCall]]:
    """Return the same instances by every way; pictures as pixels, which all of them can carry."""
    rng = np.random.default_rng(SEED)
    found: dict[str, list[ProtocolCall]] = {way: [] for way in WAYS}
    for _ in range(BODIES):
        instance = _plain(predictor, rng)
        tensors = feeds(predictor, [instance])
        body = msgspec.json.encode({"instances": [instance]})
        found["v1 JSON"].append(
            ProtocolCall(path=f"/v1/models/{model}/predict", headers={"content-type": JSON}, body=body)
        )
        found["v2 JSON"].append(_call(model, of_tensors(tensors, is_binary=False)))
        found["v2 binary"].append(_call(model, of_tensors(tensors, is_binary=True)))
    return found


def _plain(predictor: Predictor, rng: np.random.Generator) -> Any:
    """Return a random instance that holds no file."""
    while True:
        instance = predictor.card.random_request(rng, predictor.assets)
        if not predictor.card.holds_file(instance):
            return instance


def _call(model: str, request: Request) -> ProtocolCall:
    return ProtocolCall(path=f"/v2/models/{model}/infer", headers=request.headers, body=request.body)


def run(model: str, connections: int, rounds: int, seconds: int) -> dict[str, Any]:
    """Serve the model, time every way in turn, and say how they compare."""
    (folder,) = REPOSITORY.glob(f"models/*/trained/{model}")
    asked = calls(model, open_predictor(open_artifact(folder)))
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    with TemporaryDirectory() as name:
        home = Path(name)
        install_artifacts(home)
        client = LoadClient("wrk", home)
        with serving(LECTERN, Path(sys.executable), home, {model: asked["v1 JSON"][0].body}) as server:
            for turn in range(rounds + 1):
                for way in WAYS[turn % 3 :] + WAYS[: turn % 3]:
                    client.load(_alike(asked[way]))
                    settle(server)
                    tally = client.run(server, connections, seconds if turn else 1)
                    assert not tally.errors, f"{way}: {tally}"
                    if turn:  # the first is to get warm
                        rates[way].append(tally.answers / tally.seconds)
    return _tell(model, connections, seconds, rates)


def _alike(of_one_way: Sequence[ProtocolCall]) -> list[ProtocolCall]:
    """Those whose headers are the first one's: wrk sends one set of headers."""
    return [call for call in of_one_way if call.headers == of_one_way[0].headers]


def _tell(model: str, connections: int, seconds: int, rates: dict[str, list[float]]) -> dict[str, Any]:
    ratios = {
        way: round(median(mine / other for mine, other in zip(rates["v2 binary"], rates[way], strict=True)), 3)
        for way in WAYS[:2]
    }
    return {
        "model": model,
        "connections": connections,
        "seconds": seconds,
        "requests_per_second": {way: round(median(found), 1) for way, found in rates.items()},
        "rounds": {way: [round(rate, 1) for rate in found] for way, found in rates.items()},
        "binary_against": ratios,
    }


def write(results: list[dict[str, Any]]) -> None:
    """Keep the results, with the machine and the commit they are of."""
    told = {"commit": commit(), "machine": describe(), "results": results}
    PLACE.write_text(json.dumps(told, indent=1) + "\n")
