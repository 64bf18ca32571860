"""A prediction on its way through one connection."""

from collections import deque
from typing import Protocol

from httptools import HttpRequestParser

from models.errors import HttpError, RateLimited
from service.access import Client
from service.admission import Admission, Header, admit, request_id
from service.endpoint import Endpoint
from service.gateway import Desk, Exchange
from service.keys import PREDICT
from service.trail import PARENT


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
        self.length = admission.length or 0
        self.parts: list[bytes] | deque[bytes] = []

    def arrive(self, desk: Desk, more: int) -> bool:
        """Count more bytes of a long body, or fewer; whether the desk has room for them."""
        self.arrived += more
        desk.arriving_bytes += more
        return desk.arriving_bytes <= desk.settings.max_arriving_bytes

    def send(self, answer: bytes | HttpError) -> None:
        """Hand the answer to the connection."""
        self.reply = answer
        self.line.flush()


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

    def ask(self, desk: Desk, body: bytes, media_type: str, timeout_seconds: float) -> None:
        """Say no."""
        self.finish(self.error)


def recognise(line: Line, parser: HttpRequestParser, headers: list[Header], desk: Desk, model: str) -> Call | None:
    """The call of a request to a model with nothing unusual about it; ``None`` is for the front to answer."""
    if parser.get_method() != b"POST" or parser.get_http_version() != "1.1" or parser.should_upgrade():
        return None
    endpoint, found, access = desk.endpoints[model], dict(headers), desk.access
    try:
        bucket = None if access is None else access.check(PREDICT, headers, found, line.client)
        admission = admit(headers, found, endpoint.bodies.media_types, desk.settings)
    except HttpError:
        return None
    if admission.length is None:
        return None
    identity, is_last = request_id(found), not parser.should_keep_alive()
    call: Call
    if bucket is not None and (error := bucket.refusal()) is not None:
        call = Refused(endpoint, identity, line, admission, is_last=is_last, error=error)
    else:
        call = Call(endpoint, identity, line, admission, is_last=is_last)
    if endpoint.trail is not None:
        call.parent = found.get(PARENT, b"")
    return call
