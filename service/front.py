"""The outermost ASGI layer: a closed set of routes, limits, error bodies, and the answers themselves.

BentoML's own middlewares never see a prediction: they cost twenty times what the rest does, and label their metrics
with whatever path was asked for. What this layer does not answer and does not know never gets past it.
"""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

import numpy as np
import orjson

from models.errors import (
    BodyTooLarge,
    HttpError,
    MalformedRequest,
    MethodNotAllowed,
    RequestTimeout,
    UnknownRoute,
    UnsupportedMediaType,
)
from service.errors import MEDIA_TYPE, problem
from service.gateway import Desk, Endpoint
from service.metrics import LATENCY, REQUESTS
from service.openapi import assets_page, card_page, docs_page, index, openapi

logger = logging.getLogger("lectern.front")

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]

JSON = b"application/json"
MAX_LENGTH_DIGITS = 18
BENTOML_ROUTES = frozenset(("/healthz", "/livez", "/readyz", "/metrics", "/schema.json"))
# What the documentation page loads, and no other name: each path that BentoML sees is a series in its metrics.
STATIC_FILES = frozenset(
    f"/static_content/{name}" for name in ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-light-32x32.png")
)
MODEL_ROUTE = re.compile(r"/v1/models/([a-z][a-z0-9-]{0,39})(/predict|/assets)?")
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class Disconnected(Exception):
    """The caller is gone; nobody reads an answer."""


class Front:
    """Answers Lectern's routes itself and lets BentoML's health, metrics and schema through."""

    def __init__(self, app: App, desk: Callable[[], Desk]) -> None:
        self.app, self.desk = app, desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call; never raises for an HTTP request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        await self._route(scope, receive, send, scope["path"])

    async def _route(self, scope: Scope, receive: Receive, send: Send, path: str) -> None:
        match = MODEL_ROUTE.fullmatch(path)
        if match is not None and match[2] == "/predict":
            await self._predict(scope, receive, send, match[1])
        elif path not in BENTOML_ROUTES and path not in STATIC_FILES:
            await self._show(scope, send, match)
        elif scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
        else:
            await self._refuse(scope, send, MethodNotAllowed("only GET is allowed here", "GET, HEAD"))

    async def _show(self, scope: Scope, send: Send, match: re.Match[str] | None) -> None:
        try:
            media_type, body = self._page(scope, match)
        except HttpError as error:
            await self._refuse(scope, send, error)
        except Exception:  # the process border, as in ``_predict``
            logger.exception("page %s failed", _request_id(scope).decode())
            await self._refuse(scope, send, HttpError("internal error"))
        else:
            await _send(send, 200, media_type, body, _request_id(scope))

    def _page(self, scope: Scope, match: re.Match[str] | None) -> tuple[bytes, bytes]:
        """A page about the service; ``match`` is the path when it names a model.

        Raises:
            UnknownRoute: If there is none at this path.
            UnknownModel: If the model is not served.
            MethodNotAllowed: If the method is not GET.
        """
        desk = self.desk()
        pages: dict[str, Callable[[], tuple[bytes, bytes]]] = {
            "/": lambda: (b"text/html; charset=utf-8", docs_page()),
            "/docs.json": lambda: (JSON, _json(openapi(desk))),
            "/v1/models": lambda: (JSON, _json(index(desk))),
        }
        if match is not None:
            endpoint, describe = desk.find(match[1]), assets_page if match[2] else card_page
            pages[scope["path"]] = lambda: (JSON, _json(describe(endpoint)))
        page = pages.get(scope["path"])
        if page is None:
            raise UnknownRoute("no such path; the documentation is at /")
        if scope["method"] not in ("GET", "HEAD"):
            raise MethodNotAllowed("only GET is allowed here", "GET, HEAD")
        media_type, body = page()
        return media_type, b"" if scope["method"] == "HEAD" else body

    async def _predict(self, scope: Scope, receive: Receive, send: Send, model: str) -> None:
        request_id = _request_id(scope)
        try:
            endpoint = self.desk().find(model)
        except HttpError as error:
            await self._refuse(scope, send, error)
            return
        outcome = "internal"
        try:
            answer = await self._answer(scope, receive, endpoint)
            outcome = "ok"
            await _send(send, 200, JSON, answer, request_id)
        except HttpError as error:
            outcome = error.code
            await self._refuse(scope, send, error)
        except Disconnected:
            outcome = "disconnected"
        except Exception:  # the process border: BentoML would let the caller hang until its timeout
            logger.exception("request %s failed", request_id.decode())
            await self._refuse(scope, send, HttpError("internal error"))
        finally:
            REQUESTS.labels(endpoint.name, outcome).inc()

    async def _answer(self, scope: Scope, receive: Receive, endpoint: Endpoint) -> bytes:
        if scope["method"] != "POST":
            raise MethodNotAllowed("only POST is allowed here", "POST")
        desk = self.desk()
        media_type = _media_type(scope, endpoint)
        body = await _read_body(scope, receive, desk.settings.max_body_bytes, desk.settings.body_timeout_seconds)
        started = time.perf_counter()
        answer = _json(await desk.answer(endpoint, body, media_type))
        LATENCY.labels(endpoint.name).observe(time.perf_counter() - started)
        return answer

    async def _refuse(self, scope: Scope, send: Send, error: HttpError) -> None:
        request_id = _request_id(scope)
        more: Headers = []
        if isinstance(error, MethodNotAllowed):
            more.append((b"allow", error.allowed.encode()))
        if error.status == 503:
            more.append((b"retry-after", b"%d" % (1 + secrets.randbelow(3))))
        if isinstance(error, BodyTooLarge | RequestTimeout):
            more.append((b"connection", b"close"))  # the rest of the body is never read
        await _send(send, error.status, MEDIA_TYPE, problem(error, request_id.decode()), request_id, more)


def _header(scope: Scope, name: bytes) -> bytes | None:
    return next((value for key, value in scope["headers"] if key == name), None)


def _request_id(scope: Scope) -> bytes:
    """The caller's ``x-request-id`` if it is harmless, else a new one; the same all through one request."""
    known: bytes | None = scope.get("lectern.request_id")
    if known is None:
        given = _header(scope, b"x-request-id")
        known = given if given and REQUEST_ID.fullmatch(given) else secrets.token_hex(8).encode()
        scope["lectern.request_id"] = known
    return known


def _media_type(scope: Scope, endpoint: Endpoint) -> str:
    """The body's content type, without parameters.

    Raises:
        UnsupportedMediaType: If it is missing, given twice, or not one the model reads.
    """
    allowed = ("application/json", *endpoint.predictor.card.from_media)
    given = [value for key, value in scope["headers"] if key == b"content-type"]
    media_type = given[0].split(b";")[0].strip().lower().decode("latin-1") if len(given) == 1 else ""
    if media_type not in allowed:
        raise UnsupportedMediaType(f"the content type must be one of {', '.join(allowed)}")
    return media_type


async def _read_body(scope: Scope, receive: Receive, limit: int, timeout: float) -> bytes:
    """The whole body.

    Raises:
        BodyTooLarge: As soon as it is known to be longer than ``limit``, before it is read where it says so itself.
        RequestTimeout: If it has not arrived after ``timeout`` seconds.
        Disconnected: If the caller is gone.
    """
    declared = _header(scope, b"content-length")
    if declared is not None and not declared.isdigit():
        raise MalformedRequest("the content length is not a number")
    # Python refuses to read thousands of digits as a number; nothing that long is below the limit.
    if declared is not None and (len(declared) > MAX_LENGTH_DIGITS or int(declared) > limit):
        raise BodyTooLarge(f"the body may have {limit} bytes")
    parts, length = [], 0
    try:
        async with asyncio.timeout(timeout):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Disconnected
                parts.append(message.get("body", b""))
                length += len(parts[-1])
                if length > limit:
                    raise BodyTooLarge(f"the body may have {limit} bytes")
                if not message.get("more_body", False):
                    return parts[0] if len(parts) == 1 else b"".join(parts)
    except TimeoutError as error:
        raise RequestTimeout(f"the body did not arrive within {timeout:g} seconds") from error


def _json(value: Any) -> bytes:
    return orjson.dumps(value, default=_contiguous, option=orjson.OPT_SERIALIZE_NUMPY)


def _contiguous(value: Any) -> Any:
    """What orjson does not write itself: arrays that are not contiguous. Their numbers must look like all others."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{type(value).__name__} has no place in an answer")
    return np.ascontiguousarray(value)


async def _send(
    send: Send, status: int, media_type: bytes, body: bytes, request_id: bytes, more: Headers | None = None
) -> None:
    headers: Headers = [
        (b"content-type", media_type),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id),
        *(more or ()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
