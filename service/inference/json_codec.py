"""Read requests for predictions as JSON, or in a media type of the model's own, and answer in JSON."""

from collections.abc import Iterator, Mapping

from models.card import Array, Prediction, holds_no_file
from models.payload.json_payload import Question
from service.inference.request import InferenceRequest


class JsonCodec:
    """A ``PayloadCodec`` over the endpoint's ``JsonPayloads``; it keeps nothing of a request."""

    wants_outputs = False

    def take_outputs(self, index: int, outputs: Mapping[str, Array]) -> None:
        """Keep nothing: the answer is written from predictions alone."""

    def read(self, request: InferenceRequest, body: bytes, media_type: str) -> Question:
        """Decode a body; raises as ``JsonPayloads.read``."""
        return request.endpoint.payloads.read(body, media_type)

    def holds_file(self, request: InferenceRequest, question: Question) -> bool:
        """Return whether there is a file to decode."""
        holds_file = request.endpoint.predictor.card.holds_file
        return holds_file is not holds_no_file and any(map(holds_file, question.instances))

    def encode(self, request: InferenceRequest, question: Question) -> None:
        """Make the request's samples; raises as ``Endpoint.check`` and ``Predictor.encode``."""
        request.accept(question)
        request.samples = request.endpoint.predictor.encode(question.instances, explain=question.explain)

    def encode_stepwise(self, request: InferenceRequest, question: Question) -> Iterator[None]:
        """Do what ``encode`` does, an instance a step."""
        request.accept(question)
        request.samples = []
        predictor = request.endpoint.predictor
        return predictor.encode_stepwise(question.instances, request.samples, explain=question.explain)

    def write(self, request: InferenceRequest, predictions: list[Prediction]) -> bytes:
        """Write the body of the answer."""
        return request.endpoint.write(predictions, request.samples if request.outlier else None)


JSON_CODEC = JsonCodec()
