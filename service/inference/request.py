"""Carry one request to a model, from its first header to its one answer."""

import asyncio
import logging
from collections.abc import Iterator
from time import monotonic

from models.card import Prediction, never
from models.errors import DeadlineExceeded, HttpError
from models.payload.json_payload import Question
from service.inference.endpoint import Endpoint
from service.inference.request_queue import NO_TIME, Pending
from service.messages.headers import Admission, Header, admit
from service.messages.response import Reply, reply
from service.settings import Settings
from service.telemetry.metrics import ABANDONED, LATE

logger = logging.getLogger("lectern.gateway")


class Exchange(Pending):
    """One request to a model, from its first header to its one answer; ``send`` says where that goes.

    Attributes:
        endpoint: Whose.
        request_id: The caller's, or a new one.
        outlier: Whether the answer says how unusual each instance is.
        head_length: As in ``Admission``.
        timer: Answers in time what is still being prepared.
    """

    outlier = False
    timer: asyncio.TimerHandle | None = None
    head_length: int | None = None

    def __init__(self, endpoint: Endpoint, request_id: bytes) -> None:
        self.endpoint, self.request_id = endpoint, request_id
        endpoint.ledger.begin()

    def send(self, answer: bytes | HttpError) -> None:
        """Called once, with the JSON answer or an error; never after ``abandon``."""
        raise NotImplementedError

    # What depends on the protocol that the request came by.

    @staticmethod
    def admit(endpoint: Endpoint, headers: list[Header], found: dict[bytes, bytes], settings: Settings) -> Admission:
        """Check the request's headers; raises as ``admission.admit``."""
        return admit(headers, found, endpoint.bodies.media_types, settings)

    def read(self, body: bytes, media_type: str) -> Question:
        """What the body asks; raises as ``Bodies.read``."""
        return self.endpoint.bodies.read(body, media_type)

    def holds_file(self, question: Question) -> bool:
        """Whether there is a file to decode."""
        holds_file = self.endpoint.predictor.card.holds_file
        return holds_file is not never and any(map(holds_file, question.instances))

    def encode(self, question: Question) -> None:
        """Make its samples; raises as ``Endpoint.check`` and ``Predictor.encode``."""
        self.accept(question)
        self.samples = self.endpoint.predictor.encode(question.instances, explain=question.explain)

    def encode_stepwise(self, question: Question) -> Iterator[None]:
        """Do what ``encode`` does, an instance a step."""
        self.accept(question)
        self.samples = []
        return self.endpoint.predictor.encode_stepwise(question.instances, self.samples, explain=question.explain)

    def accept(self, question: Question) -> None:
        """Note what is wanted beside predictions; raises as ``Endpoint.check``."""
        self.endpoint.check(question)
        self.explain, self.outlier = question.explain, question.outlier

    def write(self, predictions: list[Prediction]) -> bytes:
        """The body of the answer."""
        return self.endpoint.write(predictions, self.samples if self.outlier else None)

    def respond(self, answer: bytes | HttpError) -> Reply:
        """The whole answer around a body, or an error."""
        return reply(answer, self.request_id, digest=self.endpoint.digest)

    # The way to the model and back.

    def expire_in_time(self) -> None:
        """Answer at the deadline, if nothing has by then."""
        if self.timer is not None:
            self.timer.cancel()
        left, late = max(0.0, self.deadline - monotonic()), DeadlineExceeded(NO_TIME)
        self.timer = asyncio.get_running_loop().call_later(left, self.finish, late)

    def finish(self, result: list[Prediction] | Exception) -> None:
        """Answer, once."""
        if self.is_over:
            return
        self.is_over = True
        answer: bytes | HttpError
        if isinstance(result, HttpError):
            answer = result.bare()
        else:
            try:
                answer = self.write(_checked(result))
            except Exception:  # the process border: BentoML would let the caller hang until its timeout
                told = {"event": "request_failed", "request_id": self.request_id.decode()}
                logger.exception("request %s failed", self.request_id.decode(), extra=told)
                answer = HttpError("internal error")
        if isinstance(answer, HttpError):
            if isinstance(answer, DeadlineExceeded):
                self.dropped = LATE
            self.endpoint.ledger.fail(answer)
        else:
            self.endpoint.ledger.answer(self, monotonic() - self.started, len(answer))
        self.send(answer)
        self._tell("ok" if isinstance(answer, bytes) else answer.code)

    def _tell(self, outcome: str) -> None:
        if self.endpoint.trail is not None:
            self.endpoint.trail.tell(self.endpoint.name, self.endpoint.manifest.tag, self, outcome)

    def abandon(self) -> None:
        """The caller is gone: what is left of its request never reaches the model."""
        if not self.is_over:
            self.is_over, self.dropped = True, ABANDONED
            self.endpoint.ledger.abandon()
            self._tell("disconnected")


def _checked(result: list[Prediction] | Exception) -> list[Prediction]:
    if isinstance(result, Exception):
        raise result
    return result


class AwaitedExchange(Exchange):
    """A request whose answer somebody awaits."""

    def __init__(self, endpoint: Endpoint, request_id: bytes) -> None:
        super().__init__(endpoint, request_id)
        self.answered: asyncio.Future[bytes | HttpError] = asyncio.get_running_loop().create_future()

    def send(self, answer: bytes | HttpError) -> None:
        """Hand it to whoever waits."""
        self.answered.set_result(answer)
