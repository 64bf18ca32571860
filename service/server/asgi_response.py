"""Answers as ASGI takes them."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from models.errors import HttpError, RequestTimeout
from service.inference.request import Exchange
from service.messages.request_body import Receive, linger
from service.messages.response import JSON, Reply, reply
from service.telemetry.http_metrics import Responses

Scope: TypeAlias = MutableMapping[str, Any]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def counted(send: Send, responses: Responses) -> Send:
    """The same, which counts the answer that is sent."""

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
    await put_whole(send, reply(content, identity, media_type), receive if _may_be_arriving(content) else None)


async def send_answer(
    send: Send, exchange: Exchange, answer: bytes | HttpError, receive: Receive | None = None
) -> None:
    """Answer an exchange."""
    await put_whole(send, exchange.respond(answer), receive if _may_be_arriving(answer) else None)


def _may_be_arriving(answer: bytes | HttpError) -> bool:
    return isinstance(answer, HttpError) and answer.is_last and not isinstance(answer, RequestTimeout)


async def put_whole(send: Send, answer: Reply, receive: Receive | None = None) -> None:
    """Send a whole answer; ``receive`` is read for a moment, so that the caller reads it."""
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.all_headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": receive is not None})
    if receive is not None:
        await linger(receive)
        await send({"type": "http.response.body", "body": b""})
