"""An input that comes with the request: written to disk as it arrives, never held in memory."""

import asyncio
import hashlib
import os
from errno import EDQUOT, ENOSPC
from pathlib import Path

from models.errors import StorageFull
from service.messages.request_body import Receive, stream_body

PART_BYTES = 2**20


async def receive_file(receive: Receive, file: Path, limit: int, patience: float) -> str:
    """Write a body to a new file, safe from a power cut; its SHA-256.

    Args:
        receive: ASGI's.
        file: Where to.
        limit: Bytes it may have.
        patience: Seconds, as for ``stream_body``.

    Raises:
        StorageFull: If the disk is full.
        BodyTooLarge: If it is too long.
        RequestTimeout: If it comes too slowly.
        Disconnected: If the caller is gone.
    """
    digest, parts, held = hashlib.sha256(), list[bytes](), 0
    descriptor = await asyncio.to_thread(os.open, file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

    def put(content: bytes) -> None:
        digest.update(content)
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]

    try:
        async for body in stream_body(receive, limit, patience):
            parts.append(body)
            held += len(body)
            if held >= PART_BYTES:
                await asyncio.to_thread(put, b"".join(parts))
                parts, held = [], 0
        await asyncio.to_thread(put, b"".join(parts))
        await asyncio.to_thread(os.fsync, descriptor)
    except OSError as error:
        if error.errno in (ENOSPC, EDQUOT):
            raise StorageFull("the disk is full; the input was not kept") from error
        raise
    finally:
        os.close(descriptor)
    return digest.hexdigest()
