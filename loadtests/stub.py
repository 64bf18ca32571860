"""A service whose every figure is known beforehand: ``python -m loadtests.stub --port 3999``.

It answers like one view-count model, always the same, at once. What is planted in it (stalls, a rate it does not
exceed, wrong answers, work) is what a load test must find. The generator's own limit is measured on it too.
"""

import asyncio
import random
import sys
from dataclasses import dataclass, field
from time import perf_counter
from typing import cast

import click
import msgspec
import uvloop

MODEL = {"name": "viewcount", "version": "1.0.0", "digest": "0" * 12, "family": "viewcount", "task": "forecast"}
_FORECAST = {"forecast": [3.0, 4.0, 5.0], "lower": [2.0, 3.0, 4.0], "upper": [4.0, 5.0, 6.0]}
_WRONG = {**_FORECAST, "forecast": [3.0, 4.0, 5.5]}


def _answer(body: object, status: str = "200 OK") -> bytes:
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return b"HTTP/1.1 %s\r\ncontent-length: %d\r\n\r\n%s" % (status.encode(), len(content), content)


RIGHT = _answer({"model": "viewcount:1.0.0", "predictions": [_FORECAST]})
WRONG = _answer({"model": "viewcount:1.0.0", "predictions": [_WRONG]})
REFUSED = _answer({"status": 503, "code": "overloaded"}, "503 Service Unavailable")
PAGES = {
    b"GET /v1/models ": _answer({"models": [MODEL]}),
    b"GET /v1/models/viewcount/assets ": _answer({"window": 56, "horizon": 28, "coverage": 0.9}),
}


@dataclass(kw_only=True, slots=True)
class Planted:
    """Describe what is planted.

    Attributes:
        stall_seconds: How long nothing is answered.
        every_seconds: From one stall's beginning to the next one's; 0 for never.
        bucket: Requests per second that are let in; 0 for all.
        depth: How many more may be let in at once.
        wrong_share: Of the answers, once a question in it has been asked.
        work_seconds: Computed for each answer, in which nothing else happens.
        wait_seconds: That each answer takes without anything being done.
        right_first: As many answers are right, so that references are.
        answered: Questions that were answered.
    """

    stall_seconds: float = 0.0
    every_seconds: float = 0.0
    bucket: float = 0.0
    depth: float = 80.0
    wrong_share: float = 0.0
    work_seconds: float = 0.0
    wait_seconds: float = 0.0
    right_first: int = 300
    answered: int = 0
    _tokens: float = field(default=0.0, init=False)
    _at: float = field(default_factory=perf_counter, init=False)

    def answer(self) -> bytes:
        """Return the answer to one question."""
        self.answered += 1
        if self.work_seconds:
            end = perf_counter() + self.work_seconds
            while perf_counter() < end:
                pass
        if self.bucket and not self._is_let_in():
            return REFUSED
        if self.wrong_share and self.right_first <= 0 and random.random() < self.wrong_share:  # noqa: S311
            return WRONG
        self.right_first -= 1
        return RIGHT

    def _is_let_in(self) -> bool:
        now = perf_counter()
        self._tokens, self._at = min(self.depth, self._tokens + (now - self._at) * self.bucket), now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def pause(self, began: float) -> float:
        """For how long nothing is to be answered."""
        if not self.every_seconds:
            return self.wait_seconds
        return max(self.wait_seconds, self.stall_seconds - (perf_counter() - began) % self.every_seconds)


class StubConnection(asyncio.Protocol):
    """One caller; its requests come whole, one after the other."""

    def __init__(self, planted: Planted, began: float) -> None:
        self._planted, self._began, self._held = planted, began, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep where to write."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        self._held += data
        while (end := self._end()) > 0:
            request, self._held = self._held[:end], self._held[end:]
            page = self._page(request)
            pause = 0.0 if page else self._planted.pause(self._began)
            if pause:
                asyncio.get_running_loop().call_later(pause, self._write, None)
            else:
                self._write(page)

    def _page(self, request: bytes) -> bytes | None:
        """Return the page that is asked for; ``None`` for a question."""
        if request.startswith(b"GET /metrics "):
            return _answer(b"# TYPE lectern_requests counter\nlectern_requests_total %d\n" % self._planted.answered)
        return next((page for start, page in PAGES.items() if request.startswith(start)), None)

    def _write(self, page: bytes | None) -> None:
        self._transport.write(page or self._planted.answer())

    def _end(self) -> int:
        head = self._held.find(b"\r\n\r\n")
        if head < 0:
            return 0
        _, name, rest = self._held[:head].lower().partition(b"content-length:")
        end = head + 4 + (int(rest.split(b"\r\n", 1)[0]) if name else 0)
        return end if len(self._held) >= end else 0


async def _serve(port: int, planted: Planted) -> None:
    began = perf_counter()
    server = await asyncio.get_running_loop().create_server(lambda: StubConnection(planted, began), "127.0.0.1", port)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


@click.command(help=__doc__)
@click.option("--port", default=0, help="0 for any; the one it got is printed.")
@click.option("--stall-ms", default=0.0)
@click.option("--every", default=0.0, help="Seconds from one stall to the next.")
@click.option("--bucket", default=0.0, help="Requests per second; more are refused with 503.")
@click.option("--depth", default=80.0, help="How many more at once.")
@click.option("--wrong", default=0.0, help="Share of wrong answers.")
@click.option("--work-ms", default=0.0, help="Computed for each answer.")
@click.option("--wait-ms", default=0.0, help="That each answer takes.")
def main(port: int, stall_ms: float, every: float, bucket: float, depth: float, **shares: float) -> None:
    """The command line."""
    planted = Planted(
        stall_seconds=stall_ms / 1000,
        every_seconds=every,
        bucket=bucket,
        depth=depth,
        wrong_share=shares["wrong"],
        work_seconds=shares["work_ms"] / 1000,
        wait_seconds=shares["wait_ms"] / 1000,
    )
    uvloop.install()
    asyncio.run(_serve(port, planted))


if __name__ == "__main__":
    main()
