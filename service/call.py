"""A prediction on its way through one connection."""

from typing import Protocol

from httptools import HttpRequestParser

from models.errors import HttpError
from service.admission import Admission, Header, admit, request_id
from service.gateway import Desk, Endpoint, Exchange


class Line(Protocol):
    """What a call came by and goes back by."""

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
        self.parts: list[bytes] = []

    def arrive(self, desk: Desk, more: int) -> bool:
        """Count more bytes of a long body, or fewer; whether the desk has room for them."""
        self.arrived += more
        desk.arriving_bytes += more
        return desk.arriving_bytes <= desk.settings.max_arriving_bytes

    def send(self, answer: bytes | HttpError) -> None:
        """Hand the answer to the connection."""
        self.reply = answer
        self.line.flush()


def recognise(line: Line, parser: HttpRequestParser, headers: list[Header], desk: Desk, model: str) -> Call | None:
    """The call of a request to a model with nothing unusual about it; ``None`` is for the front to answer."""
    if parser.get_method() != b"POST" or parser.get_http_version() != "1.1" or parser.should_upgrade():
        return None
    endpoint, found = desk.endpoints[model], dict(headers)
    try:
        admission = admit(headers, found, endpoint.bodies.media_types, desk.settings)
    except HttpError:
        return None
    if admission.length is None:
        return None
    return Call(endpoint, request_id(found), line, admission, is_last=not parser.should_keep_alive())
