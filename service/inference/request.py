"""Carry one request to a model, from its first header to its one answer."""

import logging
from collections.abc import Callable, Iterator, Mapping
from time import monotonic
from typing import Protocol, TypeAlias

from models.card import Array, Prediction
from models.errors import DeadlineExceeded, HttpError
from models.payload.json_payload import Question
from service.inference.endpoint import Endpoint
from service.inference.request_queue import ANSWERED, PendingRequest
from service.telemetry.metrics import ABANDONED, BROKEN, LATE
from service.telemetry.tracing import RequestTimes

logger = logging.getLogger("lectern.gateway")

Respond: TypeAlias = Callable[[bytes | HttpError], None]


class PayloadCodec(Protocol):
    """Reads the body of a request and writes the body of its answer."""

    @property
    def wants_outputs(self) -> bool:
        """Return whether the answer is written from the model's own outputs as well."""

    def take_outputs(self, index: int, outputs: Mapping[str, Array]) -> None:
        """Keep the part of the outputs that belongs to one sample; called only where ``wants_outputs``."""

    def read(self, request: "InferenceRequest", body: bytes, media_type: str) -> Question:
        """Decode a body.

        Raises:
            MalformedRequest: If it is broken.
            InvalidRequest: If it does not suit the model.
        """

    def holds_file(self, request: "InferenceRequest", question: Question) -> bool:
        """Return whether there is a file to decode."""

    def encode(self, request: "InferenceRequest", question: Question) -> None:
        """Make the request's samples.

        Raises:
            InvalidRequest: If an instance is not valid, or more is asked than the model can tell.
        """

    def encode_stepwise(self, request: "InferenceRequest", question: Question) -> Iterator[None]:
        """Do what ``encode`` does, an instance a step."""

    def write(self, request: "InferenceRequest", predictions: list[Prediction]) -> bytes:
        """Write the body of the answer."""


class InferenceRequest(PendingRequest):
    """One request to a model, answered once.

    Attributes:
        endpoint: The model's.
        codec: Reads its body and writes its answer's.
        respond: Called once, with the body of the answer or an error; never after ``abandon``.
        outlier: Whether the answer says how unusual each instance is.
    """

    outlier = False

    def __init__(self, endpoint: Endpoint, codec: PayloadCodec, request_id: bytes, respond: Respond) -> None:
        self.times = RequestTimes(request_id)
        self.endpoint, self.codec, self.respond = endpoint, codec, respond
        endpoint.counters.begin()

    @property
    def wants_outputs(self) -> bool:
        """Return whether the answer is written from the model's own outputs as well."""
        return self.codec.wants_outputs

    def take_outputs(self, index: int, outputs: Mapping[str, Array]) -> None:
        """Keep the part of the outputs that belongs to one sample."""
        self.codec.take_outputs(index, outputs)

    def accept(self, question: Question) -> None:
        """Note what is wanted beside predictions.

        Raises:
            InvalidRequest: If this version of the model cannot tell it.
        """
        self.endpoint.check(question)
        self.explain, self.outlier = question.explain, question.outlier

    def finish(self, result: list[Prediction] | Exception) -> None:
        """Answer, once."""
        if self.ended:
            return
        self.ended = BROKEN
        answer: bytes | HttpError
        if isinstance(result, HttpError):
            answer = result.bare()
        else:
            try:
                answer = self.codec.write(self, _checked(result))
            except Exception:  # the process border: BentoML would let the caller hang until its timeout
                request_id = self.times.request_id.decode()
                log_fields = {"event": "request_failed", "request_id": request_id}
                logger.exception("request %s failed", request_id, extra=log_fields)
                answer = HttpError("internal error")
        if isinstance(answer, HttpError):
            if isinstance(answer, DeadlineExceeded):
                self.ended = LATE
            self.endpoint.counters.fail(answer)
        else:
            self.ended = ANSWERED
            self.endpoint.counters.answer(self.times, monotonic() - self.times.started, len(answer))
        respond, self.respond = self.respond, _answered  # who responds may hold the request: no cycle is left
        respond(answer)
        self._trace("ok" if isinstance(answer, bytes) else answer.code)

    def abandon(self) -> None:
        """Note that the caller is gone: what is left of its request never reaches the model."""
        if not self.ended:
            self.ended, self.respond = ABANDONED, _answered
            self.endpoint.counters.abandon()
            self._trace("disconnected")

    def _trace(self, outcome: str) -> None:
        if self.endpoint.tracer is not None:
            self.endpoint.tracer.record(self.endpoint.name, self.endpoint.manifest.tag, self.times, outcome)


def _answered(_: bytes | HttpError) -> None:
    raise AssertionError("a request is answered once")


def _checked(result: list[Prediction] | Exception) -> list[Prediction]:
    if isinstance(result, Exception):
        raise result
    return result
