"""Put together what serves one version of a model."""

from collections import deque
from dataclasses import dataclass
from typing import Any

from models.artifact.drift_profile import find_outliers, measure
from models.artifact.manifest import Manifest
from models.card import Prediction
from models.errors import Fault, HttpError, InvalidRequest
from models.payload.json_payload import JsonPayloads, Question
from models.runtime.predictor import LatencyModel, Predictor, open_predictor
from models.runtime.session import Session
from service.inference.batcher import MicroBatcher, Runner
from service.inference.measurements import RequestCounters
from service.inference.scheduler import FairScheduler, Share
from service.settings import Settings
from service.telemetry.drift import drift_counters
from service.telemetry.tracing import RequestTimes, RequestTracer, open_tracer

# Requests kept per model, to try a new version on.
RECENT = 64


@dataclass(slots=True, kw_only=True, weakref_slot=True, eq=False)
class Endpoint:
    """One version of a served model, ready to answer.

    Attributes:
        manifest: The artifact's.
        provider: Where it computes; that of a remote runner is known once it has been asked.
        predictor: Validates, encodes and decodes.
        share: Of its device; takes requests.
        payloads: Reads and writes JSON and the model's own media types.
        counters: Counts its requests.
        example: The documentation's answer.
        digest: The manifest's, as the answers name it.
        recent: The first instances of the last requests, where they are kept.
        tracer: Records single requests, where that is wanted.
    """

    manifest: Manifest
    provider: str
    predictor: Predictor
    share: Share
    payloads: JsonPayloads
    counters: RequestCounters
    example: dict[str, Any]
    digest: bytes
    recent: deque[Any]
    tracer: RequestTracer | None = None

    @property
    def batcher(self) -> MicroBatcher:
        """Return what computes its batches."""
        return self.share.batcher

    @property
    def name(self) -> str:
        """Return the model's name."""
        return self.manifest.model

    def refuse(self, error: HttpError, request_id: bytes) -> None:
        """Count a request that was refused before anything became of it."""
        self.counters.refuse(error)
        if self.tracer is not None:
            self.tracer.record(self.name, self.manifest.tag, RequestTimes(request_id), error.code)

    def check(self, question: Question) -> None:
        """Let a question pass that asks for nothing more than this version can tell.

        Raises:
            InvalidRequest: If it does not know how unusual an instance is.
        """
        if question.outlier and self.batcher.drift is None:
            reason = "nothing is known of what is usual for this model"
            raise InvalidRequest(faults=[Fault(("outlier",), reason)])

    def write(self, predictions: list[Prediction], judged: list[Any] | None = None) -> bytes:
        """Return the JSON answer; for the samples that are to be judged, with how unusual each is."""
        profile, card = self.manifest.profile, self.predictor.card
        if judged is None or profile is None or card.traits is None:
            return self.payloads.write(predictions)
        measured = measure(card.traits, judged, predictions, self.predictor.assets)
        return self.payloads.write(predictions, find_outliers(profile, measured))


def make_endpoint(
    session: Session,
    provider: str,
    runner: Runner,
    scheduler: FairScheduler,
    settings: Settings,
    latency: LatencyModel | None = None,
) -> Endpoint:
    """Put the parts of one model together.

    Args:
        session: The verified artifact, open here; it makes the documentation's example.
        provider: Where ``runner`` computes.
        runner: What computes, in this process or another.
        scheduler: Of the runner's device.
        settings: The deployment's.
        latency: How long a runner in this process takes.
    """
    manifest, predictor = session.manifest, open_predictor(session)
    example = predictor.card.example(predictor.assets)
    batcher = MicroBatcher(
        predictor,
        runner,
        name=manifest.model,
        version=manifest.version,
        queue_limit=settings.queue_limit,
        latency=latency,
        drift=drift_counters(manifest, predictor),
    )
    tracer = open_tracer(settings)
    batcher.is_traced = tracer is not None
    return Endpoint(
        manifest=manifest,
        provider=provider,
        predictor=predictor,
        share=scheduler.add(batcher),
        payloads=JsonPayloads(predictor.card, manifest.tag, max_instances=settings.max_instances),
        counters=RequestCounters(manifest.model, manifest.version, batcher.meter.answered),
        example={"model": manifest.tag, "predictions": predictor.predict([example])},
        digest=manifest.digest.encode(),
        recent=deque(maxlen=RECENT),
        tracer=tracer,
    )
