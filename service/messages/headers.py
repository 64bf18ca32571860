"""Check a request's headers before its body is read."""

import re
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from httptools import HttpRequestParser

from models.errors import BodyTooLarge, MalformedRequest, UnsupportedMediaType
from service.settings import Settings

Header: TypeAlias = tuple[bytes, bytes]

MAX_DIGITS = 18
SPACES = b" \t"
# A name, an IPv4 address, or an IPv6 address in brackets; and a port (RFC 3986, 3.2.2).
HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]*)?")


class RequestHead(NamedTuple):
    """A request that may send its body.

    Attributes:
        media_type: The body's content type, without parameters.
        length: Bytes the body says it has; ``None`` when it comes in chunks.
        timeout_seconds: Time from the whole body to the answer.
        head_length: Bytes of the body's JSON part, where a protocol has such parts and the caller said so.
    """

    media_type: str
    length: int | None
    timeout_seconds: float
    head_length: int | None = None


def parse_request_headers(
    headers: list[Header], found: dict[bytes, bytes], allowed: tuple[str, ...], settings: Settings
) -> RequestHead:
    """Check a prediction's headers.

    Args:
        headers: Lower-case names and values, in order.
        found: The same by name.
        allowed: Content types the model reads.
        settings: The deployment's limits.

    Raises:
        UnsupportedMediaType: If the content type is missing, given twice, or not allowed, or the body is compressed.
        MalformedRequest: If the length or the time limit is not a number.
        BodyTooLarge: If the body says that it is too long.
    """
    is_doubled = len(found) < len(headers) and sum(name == b"content-type" for name, _ in headers) > 1
    media_type = _media_type(found.get(b"content-type", b""))
    if is_doubled or media_type not in allowed:
        raise UnsupportedMediaType(f"the content type must be one of {', '.join(filter(None, allowed))}")
    encoding = found.get(b"content-encoding")
    if encoding is not None and encoding.strip(SPACES).lower() != b"identity":
        raise UnsupportedMediaType("the body must not be compressed; send it without content-encoding")
    length, timeout = found.get(b"content-length"), found.get(b"x-request-timeout-ms")
    return RequestHead(
        media_type,
        None if length is None else _content_length(length, settings.max_body_bytes),
        settings.request_timeout_seconds if timeout is None else _seconds(timeout, settings.request_timeout_seconds),
    )


@lru_cache(maxsize=64)
def _media_type(value: bytes) -> str:
    return value.split(b";")[0].strip().lower().decode("latin-1")


def _content_length(value: bytes, limit: int) -> int:
    value = value.strip(SPACES)
    if not value.isdigit():
        raise MalformedRequest("the content length is not a number")
    # Python refuses to read thousands of digits as a number; nothing that long is below the limit.
    if len(value) > MAX_DIGITS or int(value) > limit:
        raise BodyTooLarge(f"the body may have {limit} bytes")
    return int(value)


def _seconds(value: bytes, most: float) -> float:
    value = value.strip(SPACES)
    if not value.isdigit() or len(value) > MAX_DIGITS:
        raise MalformedRequest("x-request-timeout-ms is not a whole number of milliseconds")
    return min(int(value) / 1000, most)


def names_one_host(headers: list[Header], found: dict[bytes, bytes]) -> bool:
    """Return whether there is one ``host`` and it can be one."""
    if len(found) < len(headers) and sum(name == b"host" for name, _ in headers) > 1:
        return False
    value = found.get(b"host")
    return value is not None and _is_host(value)


@lru_cache(maxsize=64)
def _is_host(value: bytes) -> bool:
    return HOST.fullmatch(value.strip(SPACES)) is not None


def host_fault(parser: HttpRequestParser, headers: list[Header]) -> MalformedRequest | None:
    """What is wrong with the host of a request (RFC 9112, 3.2): behind proxies two readers could take two hosts."""
    found = dict(headers)
    if names_one_host(headers, found) or (parser.get_http_version() == "1.0" and b"host" not in found):
        return None
    return MalformedRequest("a request must have one host header, a name or an address with or without a port")
