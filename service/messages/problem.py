"""Errors as ``application/problem+json``: no input echoed, no path, no traceback."""

from typing import Any

import orjson

from models.errors import HttpError, RequestError, ServingError

MEDIA_TYPE = b"application/problem+json"


def problem(error: HttpError, request_id: str) -> bytes:
    """Return the body of an error answer. Messages of server-side errors stay in the log."""
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
