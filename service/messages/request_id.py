"""Name requests: by the caller's ``x-request-id``, or anew."""

import re
import secrets
from itertools import count

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
SPACES = b" \t"
_numbers = count()
_prefix = secrets.token_hex(6).encode()


def request_id(found: dict[bytes, bytes]) -> bytes:
    """Return the caller's ``x-request-id`` if it is harmless, else a new one."""
    given = found.get(b"x-request-id", b"").strip(SPACES)
    return given if given and REQUEST_ID.fullmatch(given) else new_request_id()


def new_request_id() -> bytes:
    """Return a request id no other request of any process has."""
    return b"%s-%x" % (_prefix, next(_numbers))
