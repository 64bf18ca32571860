"""Errors as ``application/problem+json``: no input echoed, no path, no traceback."""

import re
from typing import Any

import msgspec
import orjson

from models.errors import Fault, HttpError, InvalidRequest, MalformedRequest, RequestError, ServingError

MEDIA_TYPE = b"application/problem+json"
_PLACE = re.compile(r"^(?P<reason>.*?)(?: - at `(?P<path>.*)`)?$", re.DOTALL)
_STEP = re.compile(r"\[(\d+)\]|\[\.\.\.\]|\.([A-Za-z_]\w*)")


def problem(error: HttpError, request_id: str) -> bytes:
    """The body of an error answer. Messages of server-side errors stay in the log."""
    is_told = isinstance(error, RequestError | ServingError)
    body: dict[str, Any] = {
        "status": error.status,
        "code": error.code,
        "error": str(error) if is_told else "internal error",
        "request_id": request_id,
        "retryable": error.retryable,
        "errors": [{"loc": list(fault.loc), "reason": fault.reason} for fault in error.faults],
    }
    return orjson.dumps(body)


def from_decoding(error: Exception) -> HttpError:
    """The error of a body that a typed decoder refused: 400 for broken syntax, 422 for a wrong type or bound."""
    if isinstance(error, msgspec.ValidationError):
        return InvalidRequest("a value makes no sense", [_fault(str(error))])
    return MalformedRequest("the body is not JSON")


def _fault(message: str) -> Fault:
    """Take ``Expected `int`, got `str` - at `$.instances[0].horizon``` apart."""
    match = _PLACE.match(message)
    assert match is not None  # the pattern matches every string
    reason = match["reason"]
    if reason.startswith("Object contains unknown field"):
        reason = "unknown field"
    loc: list[str | int] = []
    for index, key in _STEP.findall(match["path"] or ""):
        loc.append(int(index) if index else key) if index or key else None
    return Fault(tuple(loc), reason.replace("`", "").lower())
