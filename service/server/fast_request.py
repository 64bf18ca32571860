"""Keep a prediction on its way through one connection."""

from collections import deque
from typing import Protocol

from httptools import HttpRequestParser

from models.errors import HttpError
from service.auth.access import Client
from service.auth.api_keys import PREDICT
from service.inference.gateway import InferenceGateway
from service.inference.request import InferenceRequest
from service.messages.body_memory import BodyMemory
from service.messages.headers import Header, RequestHead, names_one_host
from service.messages.response import Response
from service.server.context import ServerContext
from service.server.prediction import PredictionProtocol, PredictionRoute, begin_prediction


class ResponseChannel(Protocol):
    """Describe what a prediction came by and its answer goes back by."""

    @property
    def client(self) -> Client:
        """Return its other end."""

    def flush(self) -> None:
        """Write the answers whose turn has come."""


class FastPathRequest:
    """A prediction of one connection: what has arrived of its body, and its answer until its turn comes.

    Attributes:
        request: The prediction itself.
        head: What its headers said.
        is_last: Whether the connection closes after its answer.
        parts: What has arrived of its body; of a rejected one nothing is kept.
        length: Bytes of its body.
        arrived: Bytes of a long body that are here.
        answer: Its answer, until its turn comes.
    """

    __slots__ = (
        "_channel",
        "_protocol",
        "_rejection",
        "answer",
        "arrived",
        "head",
        "is_last",
        "length",
        "parts",
        "request",
    )
    request: InferenceRequest
    head: RequestHead

    def __init__(self, channel: ResponseChannel, protocol: PredictionProtocol, *, is_last: bool) -> None:
        self._channel, self._protocol, self.is_last = channel, protocol, is_last
        self._rejection: HttpError | None = None
        self.parts: list[bytes] | deque[bytes] = []
        self.length = self.arrived = 0
        self.answer: bytes | HttpError | None = None

    def reject(self, error: HttpError) -> None:
        """Let its body go by, unread, and answer with an error then."""
        self._rejection, self.parts = error, deque(maxlen=0)

    def arrive(self, memory: BodyMemory, more: int) -> bool:
        """Count more bytes of a long body, or fewer, and return whether there is room for them."""
        if self._rejection is not None:
            return True
        self.arrived += more
        return memory.hold(more)

    def fits(self, memory: BodyMemory) -> bool:
        """Return whether there is room for all of its body."""
        return self._rejection is not None or memory.fits(self.length)

    def submit(self, gateway: InferenceGateway) -> None:
        """Put its body, which is whole, to the model, or reject it."""
        body = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
        self.parts.clear()
        if self.arrived:
            self.arrive(gateway.body_memory, -self.arrived)
        if self._rejection is None:
            gateway.submit(self.request, body, self.head.media_type, self.head.timeout_seconds)
        else:
            self.request.finish(self._rejection)

    def discard(self, memory: BodyMemory) -> None:
        """Forget what has arrived of its body."""
        self.arrive(memory, -self.arrived)
        self.parts.clear()

    def respond(self, answer: bytes | HttpError) -> None:
        """Keep the answer until its turn comes."""
        self.answer = answer
        self._channel.flush()

    def response(self, answer: bytes | HttpError) -> Response:
        """Return the whole answer around a body, or an error."""
        return self._protocol.response(self.request, answer)

    def to_bytes(self, answer: bytes, more: tuple[tuple[bytes, bytes], ...]) -> bytes:
        """Return what ``response(answer).to_bytes(more)`` is."""
        return self._protocol.to_bytes(self.request, answer, more)


def match_fast_path(
    channel: ResponseChannel,
    parser: HttpRequestParser,
    headers: list[Header],
    context: ServerContext,
    route: PredictionRoute,
) -> FastPathRequest | None:
    """Begin a prediction with nothing unusual about it; return ``None`` where the ASGI application is to answer."""
    if parser.get_method() != b"POST" or parser.get_http_version() != "1.1":
        return None
    endpoint, found, access = context.gateway.endpoints.get(route.model), dict(headers), context.access
    if endpoint is None or b"content-length" not in found or not names_one_host(headers, found):
        return None
    try:
        bucket = None if access is None else access.check(PREDICT, headers, found, channel.client)
        fast = FastPathRequest(channel, route.protocol, is_last=not parser.should_keep_alive())
        fast.request, fast.head = begin_prediction(
            context, route.protocol, endpoint, headers, found, channel.client, fast.respond
        )
    except HttpError:
        return None
    fast.length = fast.head.length or 0
    if bucket is not None and (error := bucket.refusal()) is not None:
        fast.reject(error)
    return fast
