"""For every served model a predictor, a micro-batcher, readers of bodies and a ledger."""

from collections import deque
from dataclasses import dataclass
from typing import Any

from models.artifact.drift_profile import find_outliers, measure
from models.artifact.manifest import Manifest
from models.card import Prediction
from models.errors import Fault, HttpError, InvalidRequest
from models.payload.json_payload import Bodies, Question
from models.runtime.predictor import Pace, Predictor, open_predictor
from models.runtime.session import Session
from service.inference.batcher import MicroBatcher, Runner
from service.inference.measurements import Ledger
from service.inference.scheduler import Lanes
from service.settings import Settings
from service.telemetry.drift import watch
from service.telemetry.tracing import RequestTimes, Trail, open_trail

# Requests kept per model, to try a new version on.
RECENT = 64


@dataclass(slots=True, kw_only=True, weakref_slot=True, eq=False)
class Endpoint:
    """One version of a served model, ready to answer.

    Attributes:
        bodies: Reads and writes what ``/v1`` speaks.
        provider: Where it computes; that of a remote runner is known once it has been asked.
        digest: The manifest's, as the answers name it.
        recent: The first instances of the last requests, where they are kept.
        trail: Tells of single requests, where that is wanted.
    """

    manifest: Manifest
    provider: str
    predictor: Predictor
    batcher: MicroBatcher
    bodies: Bodies
    ledger: Ledger
    example: dict[str, Any]
    digest: bytes
    recent: deque[Any]
    trail: Trail | None = None

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.model

    def refuse(self, error: HttpError, request_id: bytes) -> None:
        """Count a request that was refused before anything became of it."""
        self.ledger.refuse(error)
        if self.trail is not None:
            times = RequestTimes()
            times.request_id = request_id
            self.trail.tell(self.name, self.manifest.tag, times, error.code)

    def check(self, question: Question) -> None:
        """Let a question pass that asks for nothing more than this version can tell.

        Raises:
            InvalidRequest: If it does not know how unusual an instance is.
        """
        if question.outlier and self.batcher.watch is None:
            reason = "nothing is known of what is usual for this model"
            raise InvalidRequest("a value makes no sense", [Fault(("outlier",), reason)])

    def write(self, predictions: list[Prediction], judged: list[Any] | None = None) -> bytes:
        """The JSON answer; for the samples that are to be judged, with how unusual each is."""
        profile, card = self.manifest.profile, self.predictor.card
        if judged is None or profile is None or card.traits is None:
            return self.bodies.write(predictions)
        measured = measure(card.traits, judged, predictions, self.predictor.assets)
        return self.bodies.write(predictions, find_outliers(profile, measured))


def make_endpoint(
    session: Session, provider: str, runner: Runner, lanes: Lanes, settings: Settings, pace: Pace | None = None
) -> Endpoint:
    """Put the parts of one model together.

    Args:
        session: The verified artifact, open here; it makes the documentation's example.
        provider: Where ``runner`` computes.
        runner: Embedded or remote.
        lanes: The places of the runner's device.
        settings: The deployment's.
        pace: How long an embedded runner takes.
    """
    manifest, predictor = session.manifest, open_predictor(session)
    example = predictor.card.example(predictor.assets)
    name, limit, watched = manifest.model, settings.queue_limit, watch(manifest, predictor)
    version = manifest.version
    batcher = MicroBatcher(
        predictor, runner, lanes, name=name, version=version, queue_limit=limit, pace=pace, watch=watched
    )
    trail = open_trail(settings)
    batcher.is_told = trail is not None
    return Endpoint(
        manifest=manifest,
        provider=provider,
        predictor=predictor,
        batcher=batcher,
        bodies=Bodies(predictor.card, manifest.tag, max_instances=settings.max_instances),
        ledger=Ledger(name, version, batcher.meter.answered),
        example={"model": manifest.tag, "predictions": predictor.predict([example])},
        digest=manifest.digest.encode(),
        recent=deque(maxlen=RECENT),
        trail=trail,
    )
