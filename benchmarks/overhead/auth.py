"""Measure what checking a key costs a view-count request: ``python -m benchmarks.overhead.auth``.

One connection without a socket is given the bytes of whole requests, in turn with each kind of access, and the time of
this thread is taken: what a server adds around it (the socket, waiting) is the same for all.
"""

import asyncio
import gc
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from time import thread_time_ns
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import orjson
import uvicorn
from uvicorn.server import ServerState

from models.paths import REPOSITORY
from models.runtime.predictor import LatencyModel
from models.runtime.session import open_artifact
from service.auth.access import open_access
from service.auth.api_keys import line_of
from service.inference.endpoint import make_endpoint
from service.inference.gateway import InferenceGateway
from service.inference.scheduler import FairScheduler
from service.runners.backends import InProcessRunner
from service.server.context import ServerContext
from service.server.protocol_factory import ProtocolFactory
from service.server.routes import Application
from service.settings import Settings

KEY = "lectern_" + "k" * 43
MANY = [line_of(f"{KEY}{number}", f"other-{number}", ["predict"]) for number in range(999)]
KEYS = ";".join([line_of(KEY, "mine", ["predict"]), *MANY])
BODY = orjson.dumps({"instances": [{"views": [100 + day % 7 for day in range(56)], "horizon": 3}]})
HEAD = b"POST /v1/models/viewcount/predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
WITH_KEY = b"authorization: Bearer %b\r\n" % KEY.encode()
WAYS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "open": (b"", {}),
    "open, another connection": (b"", {}),
    "open, with a header more": (WITH_KEY, {}),
    "1000 keys": (WITH_KEY, {"keys": KEYS}),
    "1000 keys and a rate": (WITH_KEY, {"keys": KEYS, "requests_per_second": 1_000_000}),
    "a rate per address": (b"", {"requests_per_second": 1_000_000}),
    "refused: over its rate": (WITH_KEY, {"keys": KEYS, "requests_per_second": 0.001}),
}
BATCH = 50


class Socket(asyncio.Transport):
    """Takes answers and counts them."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 5), "sockname": ("127.0.0.1", 6)})
        self.answers = 0

    def write(self, data: Any) -> None:
        """One answer, which must be right, or say that this was too often."""
        assert data[9:12] in (b"200", b"429"), data
        self.answers += 1

    def set_protocol(self, protocol: Any) -> None:
        """Nobody reads it: requests are handed to the connection."""

    def get_write_buffer_size(self) -> int:
        """Return nothing waits."""
        return 0

    def is_closing(self) -> bool:
        """Never."""
        return False


def connect(settings: Settings, pool: ThreadPoolExecutor) -> tuple[Any, Socket]:
    """Return a connection to the view counts' model, and what it writes to."""
    session = open_artifact(next((REPOSITORY / "models").glob("*/trained/viewcount")))
    outputs = session.run({"views": np.ones((1, 56), np.float32)}, [spec.name for spec in session.manifest.outputs])
    runner = InProcessRunner(pool, lambda feeds, wanted: outputs)  # the model is not what is measured here
    endpoint = make_endpoint(session, "none", runner, FairScheduler(1), settings, LatencyModel(0.0001, 0.000001))
    gateway = InferenceGateway(endpoints={"viewcount": endpoint}, settings=settings, pool=pool)
    context = ServerContext(gateway=gateway, access=open_access(settings))
    inner: Any = SimpleNamespace()
    front = Application(inner, lambda: context)
    config = uvicorn.Config(front, ws="none", lifespan="off", log_config=None)
    config.load()
    wire, transport = ProtocolFactory(front)(config=config, server_state=ServerState(), app_state={}), Socket()
    wire.connection_made(transport)
    return wire, transport


async def measure(rounds: int) -> dict[str, float]:
    """Median time of one request by way, microseconds of this thread."""
    pool = ThreadPoolExecutor(1)
    lines = {name: connect(Settings(**settings), pool) for name, (_, settings) in WAYS.items()}
    request = {
        name: b"%b%bcontent-length: %d\r\n\r\n%b" % (HEAD, more, len(BODY), BODY) for name, (more, _) in WAYS.items()
    }
    taken: dict[str, list[float]] = {name: [] for name in WAYS}
    more: dict[str, list[float]] = {name: [] for name in WAYS}
    gc.disable()
    for _ in range(rounds):
        for name in WAYS:
            # Each beside the open one of the same moment: what else this machine does slows both.
            both = [await _spend(*lines[way], request[way]) for way in ("open", "open", name, name)]
            taken[name].append(both[1])
            more[name].append(both[3] - both[1])  # the first of each only fills the caches
    pool.shutdown()
    return {name: median(taken["open"]) + median(more[name]) for name in WAYS}


async def _spend(wire: Any, transport: Socket, request: bytes) -> float:
    before, started = transport.answers, thread_time_ns()
    for _ in range(BATCH):
        wire.data_received(request)
        while wire.unanswered:
            await asyncio.sleep(0)
    spent = (thread_time_ns() - started) / BATCH / 1000
    assert transport.answers == before + BATCH
    return spent


def lines(found: dict[str, float]) -> Iterable[str]:
    """Yield the figures, and what each way costs more than an open service does."""
    for name, spent in found.items():
        yield f"{name:26} {spent:6.2f} µs  {spent - found['open']:+6.2f}"


@click.command(help=__doc__)
@click.option("--rounds", default=300, show_default=True, help="Of 50 requests each way.")
def main(rounds: int) -> None:
    """The command line."""
    for line in lines(asyncio.run(measure(rounds))):
        click.echo(line)


if __name__ == "__main__":
    main()
