"""A service that answers after a fixed time, and can be made to cheat or to fail."""

import asyncio
import dataclasses
import socket
from typing import Any

import msgspec
import numpy as np

from loadtests.mlperf.library import SampleLibrary, head_of
from models.training.datasets import is_local
from models.viewcount.train.data import OTEXTS, load

PATH = "/v1/models/viewcount/predict"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stub:
    """Forecasts the last day's views for the next day, ``delay`` seconds after the request.

    Attributes:
        wrong: Every so many-th prediction is zero.
        refused: Every so many-th request gets a 503.
        dropped: Every so many-th request gets no answer but the end of its connection.
        caches: What was asked before is answered at once.
        certified: The score its certificate boasts of.
    """

    delay: float = 0.0
    wrong: int = 0
    refused: int = 0
    dropped: int = 0
    caches: bool = False
    certified: float = 0.0


class Service:
    """A stub at work."""

    def __init__(self, stub: Stub) -> None:
        self.stub, self.requests, self.predictions = stub, 0, 0
        self.seen: set[str] = set()
        self.pages: dict[str, Any] = {}
        if is_local(OTEXTS):
            data = load()
            self.pages["/v1/models/viewcount/assets"] = data.assets
            score = {"metric": "mean absolute error", "unit": "views per day", "test": stub.certified, "instances": 365}
            entry = {"name": "viewcount", "version": "1", "family": "viewcount", "task": "forecast", "score": score}
            entry |= {"data": data.provenance.name, "digest": "0", "provider": "stub"}
            self.pages["/v1/models"] = {"models": [entry]}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().lower().split("\r\n")
                length = next((int(line.split(":")[1]) for line in lines if line.startswith("content-length")), 0)
                status, body = await self.answer(lines[0].split()[1], await reader.readexactly(length))
                if not status:
                    break
                writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    async def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body; status 0 for none."""
        if path in self.pages:
            return 200, msgspec.json.encode(self.pages[path])
        self.requests += 1
        if self.stub.dropped and self.requests % self.stub.dropped == 0:
            return 0, b""
        if self.stub.refused and self.requests % self.stub.refused == 0:
            return 503, b"{}"
        asked = msgspec.json.decode(body)["instances"]
        keys = {str(one["views"]) for one in asked}
        if not (self.stub.caches and keys <= self.seen):
            await asyncio.sleep(self.stub.delay)
        self.seen |= keys
        return 200, msgspec.json.encode({"predictions": [self.predict(one["views"]) for one in asked]})

    def predict(self, views: list[float]) -> dict[str, Any]:
        """Tomorrow is like today, or, now and then, nobody comes."""
        self.predictions += 1
        is_wrong = self.stub.wrong and self.predictions % self.stub.wrong == 0
        return {"forecast": [0.0 if is_wrong else views[-1]]}


def main(stub: Stub, listening: socket.socket) -> None:
    """Serve until killed."""

    async def work() -> None:
        server = await asyncio.start_server(Service(stub).serve, sock=listening)
        await server.serve_forever()

    asyncio.run(work())


def windows(count: int, seed: int) -> SampleLibrary:
    """Random windows of views, all of one cost."""
    views = np.random.default_rng(seed).integers(1, 1000, (count, 56)).tolist()
    samples = [msgspec.json.encode({"views": window, "horizon": 1}) for window in views]
    return SampleLibrary(head=head_of(PATH, {"host": "stub"}), source="windows", samples=samples, costs=[1] * count)
