"""A prediction on its way through one connection."""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from httptools import HttpRequestParser

from models.errors import HttpError, RateLimited
from service.auth.access import Client
from service.auth.api_keys import PREDICT
from service.auth.load_marks import is_load_test
from service.inference.endpoint import Endpoint
from service.inference.gateway import Desk
from service.inference.request import Exchange
from service.messages.headers import Admission, Header, names_one_host, request_id
from service.messages.response import ok
from service.oip.request import TensorExchange
from service.telemetry.tracing import PARENT


class Line(Protocol):
    """What a call came by and goes back by."""

    @property
    def client(self) -> Client:
        """Its other end."""

    def flush(self) -> None:
        """Write the answers whose turn has come."""


class Call(Exchange):
    """A prediction on its way through one connection.

    Attributes:
        admission: What its headers said.
        parts: What has arrived of its body.
        is_last: Whether the connection closes after its answer.
        length: Bytes of its body.
        arrived: Bytes of a long body that are here.
        reply: The answer, until its turn comes.
    """

    reply: bytes | HttpError | None = None
    arrived = 0

    def __init__(self, endpoint: Endpoint, identity: bytes, line: Line, admission: Admission, *, is_last: bool) -> None:
        super().__init__(endpoint, identity)
        self.line, self.admission, self.is_last = line, admission, is_last
        self.length, self.head_length = admission.length or 0, admission.head_length
        self.parts: list[bytes] | deque[bytes] = []

    def arrive(self, desk: Desk, more: int) -> bool:
        """Count more bytes of a long body, or fewer; whether the desk has room for them."""
        self.arrived += more
        return desk.body_room.hold(more)

    def fits(self, desk: Desk) -> bool:
        """Whether the desk has room for all of its body."""
        return desk.body_room.fits(self.length)

    def ask(self, desk: Desk, body: bytes, media_type: str, timeout_seconds: float) -> None:
        """Put its body to the model."""
        desk.submit(self, body, media_type, timeout_seconds)

    def send(self, answer: bytes | HttpError) -> None:
        """Hand the answer to the connection."""
        self.reply = answer
        self.line.flush()

    def to_bytes(self, answer: bytes, more: tuple[tuple[bytes, bytes], ...]) -> bytes:
        """What ``respond(answer).to_bytes(more)`` is."""
        return ok(answer, self.request_id, self.endpoint.digest, more)


class Refused(Call):
    """A prediction that is refused when its body has gone by, unread."""

    def __init__(
        self,
        endpoint: Endpoint,
        identity: bytes,
        line: Line,
        admission: Admission,
        *,
        is_last: bool,
        error: RateLimited,
    ) -> None:
        super().__init__(endpoint, identity, line, admission, is_last=is_last)
        self.error, self.parts = error, deque(maxlen=0)

    def fits(self, desk: Desk) -> bool:
        """Always: nothing of its body is kept."""
        return True

    def arrive(self, desk: Desk, more: int) -> bool:
        """Count nothing."""
        return True

    def ask(self, desk: Desk, body: bytes, media_type: str, timeout_seconds: float) -> None:
        """Say no."""
        self.finish(self.error)


class TensorCall(TensorExchange, Call):
    """A prediction that came as an inference request."""

    def to_bytes(self, answer: bytes, more: tuple[tuple[bytes, bytes], ...]) -> bytes:
        """The answer as it goes over the wire."""
        return self.respond(answer).to_bytes([*more])


class RefusedTensorCall(TensorExchange, Refused):
    """One that is refused."""


class Route(NamedTuple):
    """What a path asks of which model, and in which protocol."""

    model: str
    call: type[Call] = Call
    refused: type[Refused] = Refused


def find_routes(models: Iterable[str]) -> dict[bytes, Route]:
    """The paths of predictions."""
    routes = {}
    for name in models:
        routes[f"/v1/models/{name}/predict".encode()] = Route(name)
        routes[f"/v2/models/{name}/infer".encode()] = Route(name, TensorCall, RefusedTensorCall)
    return routes


def recognise(line: Line, parser: HttpRequestParser, headers: list[Header], desk: Desk, route: Route) -> Call | None:
    """The call of a request to a model with nothing unusual about it; ``None`` is for the front to answer."""
    if parser.get_method() != b"POST" or parser.get_http_version() != "1.1":
        return None
    endpoint, found, access = desk.endpoints.get(route.model), dict(headers), desk.access
    if endpoint is None or not names_one_host(headers, found):
        return None
    try:
        bucket = None if access is None else access.check(PREDICT, headers, found, line.client)
        admission = route.call.admit(endpoint, headers, found, desk.settings)
    except HttpError:
        return None
    if admission.length is None:
        return None
    identity, is_last = request_id(found), not parser.should_keep_alive()
    call: Call
    if bucket is not None and (error := bucket.refusal()) is not None:
        call = route.refused(endpoint, identity, line, admission, is_last=is_last, error=error)
    else:
        call = route.call(endpoint, identity, line, admission, is_last=is_last)
    call.is_load_test = is_load_test(access, headers, found, line.client)
    if endpoint.trail is not None:
        call.parent = found.get(PARENT, b"")
    return call
