# /// script
# dependencies = ["msgspec==0.22.0", "orjson==3.13.0", "pillow==13.0.0", "propcache==0.5.4", "onnxruntime==1.31.1"]
# ///
"""Give every peer Lectern's own artifacts, session and codec, cut where a server may put its batcher.

``read`` belongs to one request, ``answer`` to a micro-batch of many, ``write`` to one request again.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from models.card import Prediction
from models.payload.json_payload import JsonPayloads
from models.runtime.predictor import Predictor, open_predictor
from models.runtime.session import open_artifact

MAX_INSTANCES = 1024
ALL_MODELS = ("viewcount", "tagging", "image", "image-vit", "citation", "molecule")
# Of this process: what the service serves, or the one model that a peer is asked for.
MODELS = tuple(os.environ.get("PEER_MODELS", ",".join(ALL_MODELS)).split(","))

Samples: TypeAlias = list[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """One model with its codec.

    Attributes:
        predictor: Lectern's scoring path around a session.
        bodies: Lectern's reader and writer of bodies.
    """

    predictor: Predictor
    bodies: JsonPayloads

    def read(self, body: bytes | memoryview, media_type: str = "application/json") -> Samples:
        """Validate and encode one request; mosec hands its body over as a view of shared memory."""
        return self.encode(self.bodies.read(bytes(body), media_type).instances)

    def encode(self, instances: Sequence[Any]) -> Samples:
        """Return the samples of instances that a framework decoded itself."""
        return self.predictor.encode(instances)

    def answer(self, requests: Sequence[Samples]) -> list[list[Prediction]]:
        """Return the predictions of many requests, computed together in micro-batches within the card's budget."""
        predictor = self.predictor
        predictions: list[Prediction] = []
        for batch in predictor.batches([sample for samples in requests for sample in samples]):
            feeds = predictor.card.collate(batch)
            predictions += predictor.decode(predictor.run(feeds, predictor.wanted(explain=False)), batch)
        rest = iter(predictions)
        return [[next(rest) for _ in samples] for samples in requests]

    def write(self, predictions: Sequence[Prediction]) -> bytes:
        """Return the JSON answer to one request."""
        return self.bodies.write(predictions)

    def reply(self, body: bytes) -> bytes:
        """Return the answer to one body, computed alone."""
        return self.write(self.answer([self.read(body)])[0])


def artifact(model: str) -> Path:
    """Return the folder of a shipped model."""
    return next(Path(__file__).resolve().parents[2].glob(f"models/*/trained/{model}"))


def open_codec(model: str) -> Codec:
    """Return the codec of a shipped model, with its session open."""
    session = open_artifact(artifact(model))
    predictor = open_predictor(session)
    return Codec(
        predictor=predictor,
        bodies=JsonPayloads(predictor.card, session.manifest.tag, max_instances=MAX_INSTANCES),
    )
