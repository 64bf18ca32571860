"""Answers as ASGI takes them."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from models.errors import HttpError, RequestTimeout
from service.messages.request_body import Receive, linger
from service.messages.response import JSON, Response, make_response
from service.telemetry.http_metrics import ResponseCounters

Scope: TypeAlias = MutableMapping[str, Any]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def counted(send: Send, responses: ResponseCounters) -> Send:
    """Return the same, which counts the answer that is sent."""

    async def put(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            responses.count(message["status"])
        await send(message)

    return put


async def send_content(
    send: Send,
    content: bytes | HttpError,
    identity: bytes,
    media_type: bytes = JSON,
    receive: Receive | None = None,
) -> None:
    """Answer; where a body may still be arriving that nobody wants, ``receive`` lets the caller read why."""
    await put_whole(send, make_response(content, identity, media_type), receive if may_be_arriving(content) else None)


def may_be_arriving(answer: bytes | HttpError) -> bool:
    """Return whether a body may still be arriving that nobody wants."""
    return isinstance(answer, HttpError) and answer.is_last and not isinstance(answer, RequestTimeout)


async def put_whole(send: Send, answer: Response, receive: Receive | None = None) -> None:
    """Send a whole answer; ``receive`` is read for a moment, so that the caller reads it."""
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.all_headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": receive is not None})
    if receive is not None:
        await linger(receive)
        await send({"type": "http.response.body", "body": b""})
