"""A prediction on its way through one connection."""

from typing import Protocol

from models.errors import HttpError
from service.admission import Admission
from service.gateway import Endpoint, Exchange
from service.reply import Reply, reply


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
        reply: The answer, until its turn comes.
    """

    __slots__ = ("admission", "is_last", "length", "parts", "reply", "wire")

    def __init__(self, endpoint: Endpoint, identity: bytes, wire: Line, admission: Admission, is_last: bool) -> None:
        super().__init__(endpoint, identity)
        self.wire, self.admission, self.is_last = wire, admission, is_last
        self.length = admission.length or 0
        self.parts: list[bytes] = []
        self.reply: Reply | None = None

    def send(self, answer: bytes | HttpError) -> None:
        """Hand the answer to the connection."""
        self.reply = reply(answer, self.request_id)
        self.wire.flush()
