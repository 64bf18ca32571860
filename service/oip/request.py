"""Read and answer one inference request of the Open Inference Protocol."""

from collections.abc import Iterator, Mapping

import orjson

from models.card import Array, Prediction
from models.errors import HttpError, InvalidRequest, MalformedRequest
from models.payload.json_payload import Question
from service.inference.endpoint import Endpoint
from service.inference.json_codec import JsonCodec
from service.inference.request import InferenceRequest
from service.messages.headers import MAX_DIGITS, SPACES, Header, RequestHead, parse_request_headers
from service.messages.problem import problem
from service.messages.response import Response, make_response
from service.oip.payload import TensorPayloads, TensorQuestion, tensor_payloads
from service.settings import Settings

HEAD_LENGTH = b"inference-header-content-length"
NO_LENGTH = "inference-header-content-length is not one whole number of bytes"
OCTETS = b"application/octet-stream"
# What clients send: Triton's in C++ the second, for JSON as well; its Python one sends none.
MEDIA_TYPES = ("application/json", "application/octet-stream", "")


class TensorCodec(JsonCodec):
    """A ``PayloadCodec`` of one inference request.

    Attributes:
        question: What its body asks.
        answer_head_length: Bytes of the answer's JSON part, if there is another.
    """

    wants_outputs = True
    question: TensorQuestion

    def __init__(self, payloads: TensorPayloads, head_length: int | None) -> None:
        self._payloads, self._head_length = payloads, head_length
        self._outputs: list[Mapping[str, Array]] = []
        self.answer_head_length: int | None = None

    def take_outputs(self, index: int, outputs: Mapping[str, Array]) -> None:
        """Keep the part of the outputs that belongs to one instance."""
        self._outputs[index] = outputs

    def read(self, request: InferenceRequest, body: bytes, media_type: str) -> Question:
        """Decode a body; raises as ``TensorPayloads.read``."""
        self.question = self._payloads.read(body, self._head_length)
        if self.question.plan.timeout_seconds:
            request.deadline = min(request.deadline, request.times.started + self.question.plan.timeout_seconds)
        return self.question.question

    def holds_file(self, request: InferenceRequest, question: Question) -> bool:
        """Return whether there is a file to decode; samples hold none."""
        return not self.question.are_samples and super().holds_file(request, question)

    def encode(self, request: InferenceRequest, question: Question) -> None:
        """Make the request's samples, where it does not bring them; raises as ``JsonCodec.encode``."""
        self._outputs = [{} for _ in question.instances]
        if self.question.are_samples:
            self._take_samples(request, question)
        else:
            super().encode(request, question)

    def encode_stepwise(self, request: InferenceRequest, question: Question) -> Iterator[None]:
        """Do what ``encode`` does, an instance a step; samples take none."""
        self._outputs = [{} for _ in question.instances]
        if not self.question.are_samples:
            return super().encode_stepwise(request, question)
        self._take_samples(request, question)
        return iter(())

    @staticmethod
    def _take_samples(request: InferenceRequest, question: Question) -> None:
        if question.explain:
            request.endpoint.predictor.bound_explanation(question.instances)
        request.accept(question)
        request.samples = list(question.instances)

    def write(self, request: InferenceRequest, predictions: list[Prediction]) -> bytes:
        """Write the body of the answer."""
        self.answer_head_length, content = self._payloads.write(self.question.plan, predictions, self._outputs)
        return content


class OipProtocol:
    """Describe how predictions are asked for and answered below ``/v2``."""

    @staticmethod
    def parse_headers(
        endpoint: Endpoint, headers: list[Header], found: dict[bytes, bytes], settings: Settings
    ) -> RequestHead:
        """Check a request's headers.

        Raises:
            MalformedRequest: If the length of the JSON part is no number, or given twice.
            HttpError: As ``parse_request_headers``.
        """
        head = parse_request_headers(headers, found, MEDIA_TYPES, settings)
        value = found.get(HEAD_LENGTH)
        if value is None:
            return head
        if len(found) < len(headers) and sum(name == HEAD_LENGTH for name, _ in headers) > 1:
            raise MalformedRequest(NO_LENGTH)
        return head._replace(head_length=_head_length(value))

    @staticmethod
    def codec(endpoint: Endpoint, head: RequestHead) -> TensorCodec:
        """Return what reads the request's body and writes its answer's."""
        return TensorCodec(tensor_payloads(endpoint), head.head_length)

    @staticmethod
    def response(request: InferenceRequest, answer: bytes | HttpError) -> Response:
        """Return the whole answer around a body, or an error."""
        if isinstance(answer, HttpError):
            return refusal(answer, request.times.request_id)
        request_id, digest = request.times.request_id, request.endpoint.digest
        assert isinstance(request.codec, TensorCodec)  # as ``codec`` made it
        head_length = request.codec.answer_head_length
        if head_length is None:
            return make_response(answer, request_id, digest=digest)
        whole = make_response(answer, request_id, OCTETS, digest)
        whole.headers.append((HEAD_LENGTH, b"%d" % head_length))
        return whole

    @classmethod
    def to_bytes(cls, request: InferenceRequest, answer: bytes, more: tuple[tuple[bytes, bytes], ...]) -> bytes:
        """Return the answer as it is sent, with the server's own headers."""
        return cls.response(request, answer).to_bytes([*more])

    @staticmethod
    def refusal(error: HttpError, request_id: bytes) -> Response:
        """Return the answer to a request of which nothing was begun."""
        return refusal(error, request_id)


def _head_length(value: bytes) -> int:
    value = value.strip(SPACES)
    if not value.isdigit() or len(value) > MAX_DIGITS:
        raise MalformedRequest(NO_LENGTH)
    return int(value)


def refusal(error: HttpError, request_id: bytes) -> Response:
    """An error as the protocol has it: ``error`` says where and why as well, and nothing but 400 blames a value."""
    whole = make_response(error, request_id)
    if not isinstance(error, InvalidRequest):
        return whole
    body = orjson.loads(problem(error, request_id.decode()))
    body |= {"status": 400, "error": "; ".join(describe_faults(error))}
    return whole._replace(status=400, body=orjson.dumps(body))


def describe_faults(error: InvalidRequest) -> list[str]:
    """Return what is wrong and where, a sentence each."""
    return [str(fault) for fault in error.faults] or [str(error)]
