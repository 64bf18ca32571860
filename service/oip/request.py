"""One inference request: an exchange in the protocol's own words."""

from collections.abc import Iterator
from typing import Any

import orjson

from models.card import Prediction
from models.errors import Fault, HttpError, InvalidRequest, MalformedRequest
from service.inference.endpoint import Endpoint
from service.inference.request import AwaitedExchange, Exchange
from service.messages.headers import MAX_DIGITS, SPACES, Admission, Header, admit
from service.messages.problem import problem
from service.messages.response import Reply, reply
from service.oip.payload import Asked, TensorBodies, tensor_bodies
from service.settings import Settings

HEAD_LENGTH = b"inference-header-content-length"
NO_LENGTH = "inference-header-content-length is not one whole number of bytes"
OCTETS = b"application/octet-stream"
# What clients send: Triton's in C++ the second, for JSON as well; its Python one sends none.
MEDIA_TYPES = ("application/json", "application/octet-stream", "")


class TensorExchange(Exchange):
    """An inference request, from its first header to its one answer.

    Attributes:
        asked: What its body asks.
        answer_head_length: Bytes of the answer's JSON part, if there is another.
    """

    takes_tensors = True
    asked: Asked
    answer_head_length: int | None = None

    @staticmethod
    def admit(endpoint: Endpoint, headers: list[Header], found: dict[bytes, bytes], settings: Settings) -> Admission:
        """Check the request's headers.

        Raises:
            MalformedRequest: If the length of the JSON part is no number, or given twice.
            HttpError: As ``admission.admit``.
        """
        admission = admit(headers, found, MEDIA_TYPES, settings)
        value = found.get(HEAD_LENGTH)
        if value is None:
            return admission
        if len(found) < len(headers) and sum(name == HEAD_LENGTH for name, _ in headers) > 1:
            raise MalformedRequest(NO_LENGTH)
        return Admission(admission.media_type, admission.length, admission.timeout_seconds, _head_length(value))

    def read(self, body: bytes, media_type: str) -> Any:
        """What the body asks; raises as ``TensorBodies.read``."""
        self.asked = asked = self._bodies.read(body, self.head_length)
        if asked.plan.timeout_seconds:
            self.deadline = min(self.deadline, self.started + asked.plan.timeout_seconds)
        return asked.question

    def holds_file(self, question: Any) -> bool:
        """Whether there is a file to decode; samples hold none."""
        return not self.asked.are_samples and super().holds_file(question)

    def encode(self, question: Any) -> None:
        """Make its samples, where it does not bring them; raises as ``Exchange.encode``."""
        if self.asked.are_samples:
            self._take_samples(question)
        else:
            super().encode(question)

    def encode_stepwise(self, question: Any) -> Iterator[None]:
        """Do what ``encode`` does, an instance a step; samples take none."""
        if not self.asked.are_samples:
            return super().encode_stepwise(question)
        self._take_samples(question)
        return iter(())

    def _take_samples(self, question: Any) -> None:
        if question.explain:
            self.endpoint.predictor.bound_explanation(question.instances)
        self.accept(question)
        self.samples = question.instances

    def accept(self, question: Any) -> None:
        """Make room for the tensors as well."""
        super().accept(question)
        self.tensors = [{} for _ in question.instances]

    def write(self, predictions: list[Prediction]) -> bytes:
        """The body of the answer."""
        self.answer_head_length, content = self._bodies.write(self.asked.plan, predictions, self.tensors)
        return content

    def respond(self, answer: bytes | HttpError) -> Reply:
        """The whole answer around a body, or an error."""
        if isinstance(answer, HttpError):
            return refusal(answer, self.request_id)
        if self.answer_head_length is None:
            return reply(answer, self.request_id, digest=self.endpoint.digest)
        whole = reply(answer, self.request_id, OCTETS, self.endpoint.digest)
        whole.headers.append((HEAD_LENGTH, b"%d" % self.answer_head_length))
        return whole

    @property
    def _bodies(self) -> TensorBodies:
        return tensor_bodies(self.endpoint)


class AwaitedTensorExchange(TensorExchange, AwaitedExchange):
    """One whose answer somebody awaits."""


def _head_length(value: bytes) -> int:
    value = value.strip(SPACES)
    if not value.isdigit() or len(value) > MAX_DIGITS:
        raise MalformedRequest(NO_LENGTH)
    return int(value)


def refusal(error: HttpError, request_id: bytes) -> Reply:
    """An error as the protocol has it: ``error`` says where and why as well, and nothing but 400 blames a value."""
    whole = reply(error, request_id)
    if not isinstance(error, InvalidRequest):
        return whole
    body = orjson.loads(problem(error, request_id.decode()))
    body |= {"status": 400, "error": "; ".join(tell(error))}
    return whole._replace(status=400, body=orjson.dumps(body))


def tell(error: InvalidRequest) -> list[str]:
    """What is wrong and where, a sentence each."""
    return [_place(fault) + fault.reason for fault in error.faults] or [str(error)]


def _place(fault: Fault) -> str:
    steps = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in fault.loc]
    return "".join(steps).lstrip(".") + ": " if steps else ""
