"""Begin a prediction from its headers, in whatever protocol, on the fast path and behind ASGI alike."""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from models.errors import HttpError
from service.auth.access import Client
from service.auth.load_marks import is_load_test
from service.inference.endpoint import Endpoint
from service.inference.json_codec import JSON_CODEC
from service.inference.request import InferenceRequest, PayloadCodec, Respond
from service.messages.headers import Header, RequestHead, parse_request_headers
from service.messages.request_id import request_id
from service.messages.response import Response, make_response, ok
from service.oip.request import OipProtocol
from service.server.context import ServerContext
from service.settings import Settings
from service.telemetry.tracing import PARENT


class PredictionProtocol(Protocol):
    """Describe how predictions are asked for and answered below one path."""

    def parse_headers(
        self, endpoint: Endpoint, headers: list[Header], found: dict[bytes, bytes], settings: Settings, /
    ) -> RequestHead:
        """Check a request's headers; raises as ``parse_request_headers``."""

    def codec(self, endpoint: Endpoint, head: RequestHead, /) -> PayloadCodec:
        """Return what reads the request's body and writes its answer's."""

    def response(self, request: InferenceRequest, answer: bytes | HttpError, /) -> Response:
        """Return the whole answer around a body, or an error."""

    def to_bytes(self, request: InferenceRequest, answer: bytes, more: tuple[tuple[bytes, bytes], ...], /) -> bytes:
        """Return the answer as it is sent, with the server's own headers."""

    def refusal(self, error: HttpError, request_id: bytes, /) -> Response:
        """Return the answer to a request of which nothing was begun."""


class RestProtocol:
    """Describe how predictions are asked for and answered below ``/v1``."""

    @staticmethod
    def parse_headers(
        endpoint: Endpoint, headers: list[Header], found: dict[bytes, bytes], settings: Settings
    ) -> RequestHead:
        """Check a request's headers; raises as ``parse_request_headers``."""
        return parse_request_headers(headers, found, endpoint.payloads.media_types, settings)

    @staticmethod
    def codec(endpoint: Endpoint, head: RequestHead) -> PayloadCodec:
        """Return what reads the request's body and writes its answer's."""
        return JSON_CODEC

    @staticmethod
    def response(request: InferenceRequest, answer: bytes | HttpError) -> Response:
        """Return the whole answer around a body, or an error."""
        return make_response(answer, request.times.request_id, digest=request.endpoint.digest)

    @staticmethod
    def to_bytes(request: InferenceRequest, answer: bytes, more: tuple[tuple[bytes, bytes], ...]) -> bytes:
        """Return what ``response(request, answer).to_bytes(more)`` is."""
        return ok(answer, request.times.request_id, request.endpoint.digest, more)

    @staticmethod
    def refusal(error: HttpError, request_id: bytes) -> Response:
        """Return the answer to a request of which nothing was begun."""
        return make_response(error, request_id)


REST, OIP = RestProtocol(), OipProtocol()


class PredictionRoute(NamedTuple):
    """Describe which model a path asks, and in which protocol."""

    model: str
    protocol: PredictionProtocol


def find_routes(models: Iterable[str]) -> dict[bytes, PredictionRoute]:
    """Return the paths of predictions."""
    routes = {}
    for name in models:
        routes[f"/v1/models/{name}/predict".encode()] = PredictionRoute(name, REST)
        routes[f"/v2/models/{name}/infer".encode()] = PredictionRoute(name, OIP)
    return routes


def begin_prediction(
    context: ServerContext,
    protocol: PredictionProtocol,
    endpoint: Endpoint,
    headers: list[Header],
    found: dict[bytes, bytes],
    client: Client,
    respond: Respond,
) -> tuple[InferenceRequest, RequestHead]:
    """Begin a prediction whose caller may ask it.

    Args:
        context: The server's.
        protocol: Of the path.
        endpoint: Of the model.
        headers: Lower-case names and values, in order.
        found: The same by name.
        client: The connection's other end.
        respond: Called once, with the body of the answer or an error.

    Returns:
        The request, whose body may be read and submitted to the gateway now, and what its headers say.

    Raises:
        HttpError: As ``parse_request_headers``.
    """
    head = protocol.parse_headers(endpoint, headers, found, context.gateway.settings)
    request = InferenceRequest(endpoint, protocol.codec(endpoint, head), request_id(found), respond)
    request.is_load_test = is_load_test(context.access, headers, found, client)
    if endpoint.tracer is not None:
        request.times.parent = found.get(PARENT, b"")
    return request, head
