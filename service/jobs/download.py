"""A result on its way to its caller, whole or a range of it (RFC 9110, 14)."""

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, BinaryIO

from models.errors import JobUnfinished, RangeNotSatisfiable
from service.jobs.job_request import OutputFormat
from service.jobs.store import JobState, StoredJob
from service.messages.headers import Header
from service.messages.request_body import Receive

PART_BYTES = 256 * 1024
MEDIA_TYPES = {
    OutputFormat.JSONL: b"application/jsonl",
    OutputFormat.CSV: b"text/csv; charset=utf-8",
    OutputFormat.PARQUET: b"application/vnd.apache.parquet",
    OutputFormat.ARROW: b"application/vnd.apache.arrow.file",
}
_RANGE = re.compile(rb"bytes=(\d{0,18})-(\d{0,18})")


def wanted(found: dict[bytes, bytes], size: int, etag: bytes) -> range | None:
    """Return the bytes that a request asks for; ``None`` for all of them.

    A range in another unit, one of several, and one that makes no sense may be passed over: the caller sees a 200.

    Args:
        found: Its headers.
        size: Of the result.
        etag: Of the result.

    Raises:
        RangeNotSatisfiable: If there are no such bytes.
    """
    match = _RANGE.fullmatch(found.get(b"range", b"").strip())
    if match is None or found.get(b"if-range", etag).strip() != etag:
        return None
    first, last = match.groups()
    if not first and not last:
        return None
    if first and last and int(last) < int(first):
        return None
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if start >= end:
        raise RangeNotSatisfiable(f"the result has {size} bytes", size)
    return range(start, end)


class Download:
    """One answer with a result.

    Attributes:
        status: 200 or 206.
        headers: Of the answer, but the request id.
    """

    def __init__(self, job: StoredJob, file: Path, method: str, found: dict[bytes, bytes]) -> None:
        """Find out what is asked.

        Raises:
            JobUnfinished: If there is no result.
            RangeNotSatisfiable: If it has no such bytes.
        """
        if job.state is not JobState.DONE or job.output_bytes is None:
            raise JobUnfinished(f"the job has no result; it is {job.state}", is_coming=not job.is_finished)
        etag = b'"%b"' % (job.output_sha256 or "").encode()
        self.file, self.size, self.is_head = file, job.output_bytes, method == "HEAD"
        # RFC 9110 defines ranges for GET only.
        part = None if self.is_head else wanted(found, self.size, etag)
        self.part = range(self.size) if part is None else part
        self.status = 200 if part is None else 206
        self.headers: list[Header] = [
            (b"content-type", MEDIA_TYPES[job.output_format]),
            (b"content-length", b"%d" % len(self.part)),
            (b"content-disposition", b'attachment; filename="%b.%b"' % (job.id.encode(), job.output_format.encode())),
            (b"accept-ranges", b"bytes"),
            (b"etag", etag),
        ]
        if part is not None:
            told = (part.start, part.stop - 1, self.size)
            self.headers.append((b"content-range", b"bytes %d-%d/%d" % told))

    async def send(
        self, receive: Receive, send: Callable[[MutableMapping[str, Any]], Awaitable[None]], identity: bytes
    ) -> None:
        """Answer; stop when the caller is gone."""
        try:
            file = await asyncio.to_thread(self.file.open, "rb")
        except FileNotFoundError:
            raise JobUnfinished("the result has just been removed", is_coming=False) from None
        gone = asyncio.ensure_future(_gone(receive))
        try:
            headers = [*self.headers, (b"x-request-id", identity)]
            await send({"type": "http.response.start", "status": self.status, "headers": headers})
            left = 0 if self.is_head else len(self.part)
            await asyncio.to_thread(file.seek, self.part.start)
            while left and not gone.done():
                body = await _read(file, min(left, PART_BYTES))
                left -= len(body)
                await send({"type": "http.response.body", "body": body, "more_body": left > 0})
            if self.is_head or not self.part:
                await send({"type": "http.response.body", "body": b""})
        finally:
            gone.cancel()
            await asyncio.to_thread(file.close)


async def _read(file: BinaryIO, size: int) -> bytes:
    body = await asyncio.to_thread(file.read, size)
    if not body:
        raise EOFError("the result is shorter than it was")
    return body


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
