"""Bodies as ASGI brings them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any, TypeAlias

from models.errors import BodyTooLarge, RequestTimeout
from service.messages.body_memory import LONG_BODY_BYTES, BodyMemory, too_many_bodies_in_flight
from service.settings import Settings

Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
# What an upload must bring on average, once its patience is used up; who brings less holds a connection for ever.
LEAST_BYTES_PER_SECOND = 16 * 1024
LINGER_SECONDS = 1.0


class Disconnected(Exception):
    """The caller is gone; nobody reads an answer."""


async def read_body(receive: Receive, room: BodyMemory, settings: Settings) -> bytes:
    """Return the whole body.

    Args:
        receive: ASGI's.
        room: Counts its bytes while they arrive.
        settings: How long it may be, and how long it may take.

    Raises:
        BodyTooLarge: As soon as it is known to be too long.
        Overloaded: If too many long bodies are arriving at once.
        RequestTimeout: If it has not arrived in time.
        Disconnected: If the caller is gone.
    """
    parts, length = list[bytes](), 0
    limit, timeout = settings.max_body_bytes, settings.body_timeout_seconds
    try:
        async with asyncio.timeout(timeout):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Disconnected
                parts.append(message.get("body", b""))
                length += len(parts[-1])
                fits = room.hold(len(parts[-1]))
                if length > limit:
                    raise BodyTooLarge(f"the body may have {limit} bytes")
                if not message.get("more_body", False):
                    return parts[0] if len(parts) == 1 else b"".join(parts)
                if length > LONG_BODY_BYTES and not fits:
                    raise too_many_bodies_in_flight()
    except TimeoutError as error:
        raise RequestTimeout(f"the body did not arrive within {timeout:g} seconds") from error
    finally:
        parts.clear()  # an error would keep them
        room.hold(-length)


async def linger(receive: Receive) -> None:
    """Wait for the caller to read its answer: to close on who is sending is to reset, which loses the answer.

    A little is read, so that a body that is nearly here ends the waiting.
    """
    length = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while length < LONG_BODY_BYTES and (message := await receive()).get("more_body", False):
                length += len(message.get("body", b""))
            if length >= LONG_BODY_BYTES:
                await asyncio.sleep(LINGER_SECONDS)


async def stream_body(receive: Receive, limit: int, patience: float) -> AsyncIterator[bytes]:
    """Yield the parts of a body as they come.

    Args:
        receive: ASGI's.
        limit: Bytes it may have.
        patience: Seconds it may take, and one more for every 16 KiB it has brought.

    Raises:
        BodyTooLarge: As soon as it is known to be too long.
        RequestTimeout: If it comes too slowly.
        Disconnected: If the caller is gone.
    """
    loop, length = asyncio.get_running_loop(), 0
    started, more = loop.time(), True
    while more:
        try:
            async with asyncio.timeout_at(started + patience + length / LEAST_BYTES_PER_SECOND):
                message = await receive()
        except TimeoutError as error:
            raise RequestTimeout("the body comes too slowly") from error
        if message["type"] == "http.disconnect":
            raise Disconnected
        body, more = message.get("body", b""), message.get("more_body", False)
        length += len(body)
        if length > limit:
            raise BodyTooLarge(f"the body may have {limit} bytes")
        yield body
