# /// script
# dependencies = ["bentoml==1.4.39", "uvloop==0.23.0", "httptools==0.9.0", "numpy==2.4.6"]
# ///
"""BentoML as its documentation writes it: one batchable API per model, its settings left as they are.

``python -m benchmarks.peers.serve_bentoml PORT``. The batched argument is the list of instances itself, which BentoML
parses (as plain dictionaries, the cheapest type it takes); Lectern's types check and convert them, its codec does the
rest. A batchable API must return a list of plain values, so the answer is a bare array and not Lectern's writer's.
"""

import os
import sys
from typing import Any

import bentoml
import msgspec

from benchmarks.peers import read_ports
from benchmarks.peers.codec import MODELS, open_codec


def _plain(prediction: dict[str, Any]) -> dict[str, Any]:
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in prediction.items()}


def _api(model: str) -> Any:
    """Return a batchable API for one model."""

    def predict(self: Any, instances: list[dict[str, Any]]) -> list[dict[str, Any]]:
        codec = self.codecs[model]
        samples = codec.encode(msgspec.convert(instances, list[codec.predictor.card.instance]))
        return [_plain(prediction) for prediction in codec.answer([samples])[0]]

    predict.__name__ = "predict_" + model.replace("-", "_")
    return bentoml.api(
        predict, batchable=True, max_batch_size=64, max_latency_ms=1000, route=f"/v1/models/{model}/predict"
    )


class Models:
    """Every model."""

    def __init__(self) -> None:
        self.codecs = {model: open_codec(model) for model in MODELS}


Peer = bentoml.service(name="peer")(
    type("Peer", (Models,), {"predict_" + model.replace("-", "_"): _api(model) for model in MODELS})
)


if __name__ == "__main__":
    target = "benchmarks.peers.serve_bentoml:Peer"
    arguments = ["serve", target, "--host", "127.0.0.1", "--port", str(read_ports(__doc__, "port")[0])]
    os.execv(sys.executable, [sys.executable, "-m", "bentoml", *arguments])
