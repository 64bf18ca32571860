"""Represent responses: status, body and headers, whatever carries them."""

from functools import lru_cache
from http import HTTPStatus
from itertools import cycle
from math import ceil
from typing import NamedTuple, TypeAlias

from models.errors import HttpError, JobUnfinished, MethodNotAllowed, RangeNotSatisfiable, RateLimited
from service.messages.problem import MEDIA_TYPE, problem

Headers: TypeAlias = list[tuple[bytes, bytes]]

JSON = b"application/json"
CLOSE = (b"connection", b"close")
CONTENT_TYPE = (b"content-type", JSON)
_more_seconds = cycle(range(3))


class Response(NamedTuple):
    """A whole answer.

    Attributes:
        status: The HTTP status.
        headers: Those that many answers share.
        request_id: Of the request.
        body: What is said.
    """

    status: int
    headers: Headers
    request_id: bytes
    body: bytes

    @property
    def all_headers(self) -> Headers:
        """Return every header, for ASGI."""
        length = [] if self.status == 204 else [(b"content-length", b"%d" % len(self.body))]
        return [*self.headers, *length, (b"x-request-id", self.request_id)]

    def to_bytes(self, more: Headers) -> bytes:
        """Return the answer as it goes over the wire, with the server's own headers, in one piece."""
        first = head(self.status, (*more, *self.headers))
        return b"%scontent-length: %d\r\nx-request-id: %s\r\n\r\n%s" % (
            first, len(self.body), self.request_id, self.body
        )  # fmt: skip


def make_response(
    content: bytes | HttpError, request_id: bytes, media_type: bytes = JSON, digest: bytes = b""
) -> Response:
    """The answer that carries ``content``, with the digest of the model that made it, or says why there is none."""
    if isinstance(content, HttpError):
        headers = [(b"content-type", MEDIA_TYPE), *_more(content)]
        return Response(content.status, headers, request_id, problem(content, request_id.decode()))
    named = [(b"x-model-digest", digest)] if digest else []
    return Response(200, [(b"content-type", media_type), *named], request_id, content)


def _more(error: HttpError) -> Headers:
    headers = [CLOSE] if error.is_last else []
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allowed.encode()))
    elif error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    elif isinstance(error, RangeNotSatisfiable):
        headers.append((b"content-range", b"bytes */%d" % error.size))
    elif isinstance(error, RateLimited):
        headers.append(_retry_after(ceil(error.wait_seconds)))
    elif error.status == 503 or (isinstance(error, JobUnfinished) and error.retryable):
        headers.append(_retry_after(1))
    return headers


def _retry_after(least: int) -> tuple[bytes, bytes]:
    """Not the same for all who are told at once, so that they do not come back at once."""
    return b"retry-after", b"%d" % (least + next(_more_seconds))


@lru_cache(maxsize=64)
def head(status: int, headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """Return the first lines of an answer, as they go over the wire; those of all answers of one second are alike."""
    line = b"HTTP/1.1 %d %s\r\n" % (status, HTTPStatus(status).phrase.encode())
    return line + b"".join(b"%s: %s\r\n" % header for header in headers)


def ok(content: bytes, request_id: bytes, digest: bytes, more: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """What ``make_response(content, request_id, JSON, digest).to_bytes(more)`` is, in less than half the time."""
    first = head(200, (*more, CONTENT_TYPE))
    return b"%sx-model-digest: %s\r\ncontent-length: %d\r\nx-request-id: %s\r\n\r\n%s" % (
        first, digest, len(content), request_id, content
    )  # fmt: skip
