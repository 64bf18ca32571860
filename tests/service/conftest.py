"""A real server on 127.0.0.1, with a model that computes 2x + 1 behind a gate, and clients that are bare sockets."""

import asyncio
import logging
import re
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import uvicorn
import uvloop
from msgspec.structs import replace
from uvicorn.server import ServerState

from models.budget import Budget
from models.card import Card, Feeds, TensorSpec, Tolerance
from models.runtime.predictor import LatencyModel
from models.runtime.session import Session
from service.auth.access import open_access
from service.inference.endpoint import Endpoint, make_endpoint
from service.inference.gateway import InferenceGateway
from service.inference.scheduler import FairScheduler
from service.jobs.api import open_jobs
from service.runners.backends import InProcessRunner
from service.server.context import ServerContext
from service.server.protocol_factory import ProtocolFactory
from service.server.routes import Application
from service.settings import Settings
from service.telemetry.metrics import REQUESTS

Work = Callable[[], Coroutine[Any, Any, None]]
Serve = Callable[..., AbstractAsyncContextManager["Live"]]
DEFAULT_HEADERS = [(b"date", b"Thu, 01 Jan 1970 00:00:00 GMT"), (b"server", b"uvicorn")]


class Assets(msgspec.Struct, frozen=True):
    """A model without constants."""

    sizes: dict[str, int] = {}


DOUBLE: Any = Card(
    family="fake",
    task="double",
    assets=Assets,
    instance=int,
    prediction=dict,
    example=lambda assets: 1,
    random_request=lambda rng, assets: int(rng.integers(1000)),
    validate=lambda instance, assets: iter(()),
    encode=lambda instance, assets: instance,
    collate=lambda samples: {"x": np.asarray(samples, np.int64)},
    decode=lambda outputs, samples, assets: [{"y": int(y)} for y in outputs["y"]],
    inputs=(TensorSpec(name="x", dtype="int64", axes=("batch",)),),
    outputs=(TensorSpec(name="y", dtype="int64", axes=("batch",)),),
    tolerance=Tolerance(atol=0, rtol=0, reason="whole numbers"),
    cost=lambda sample: 1,
    budget=Budget(unit="rows", batch=64, explained=0),
    from_media={},
)


class Model:
    """2x + 1; remembers what it saw, and answers nothing while its gate is shut."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def run(self, feeds: Feeds, outputs: list[str]) -> dict[str, Any]:
        self.seen += feeds["x"].tolist()
        await self.gate.wait()
        return {"y": 2 * feeds["x"] + 1}

    run_now = run


@dataclass
class Answer:
    """Describe what a client saw; ``headers`` in order."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def __getitem__(self, name: str) -> str | None:
        return dict(self.headers).get(name)

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def y(self) -> int:
        """Return the doubled number of an answer with one prediction."""
        assert self.status == 200, self
        (prediction,) = self.json["predictions"]
        return int(prediction["y"])

    def steady(self) -> "Answer":
        """Return the same without a request id that the server made up, which differs each time."""
        identity = self["x-request-id"]
        if identity is not None and re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]+", identity):
            self.body = self.body.replace(identity.encode(), b"ID")
            self.headers = [item for item in self.headers if item[0] not in ("x-request-id", "content-length")]
        return self


class Client:
    """A bare socket; ``read`` believes nothing that is not well-formed."""

    def __init__(self, address: tuple[str, int], receive_buffer: int | None) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.address, self.received, self.is_reset = address, b"", False

    async def send(self, *segments: bytes) -> None:
        """Send, each segment in a packet of its own."""
        loop = asyncio.get_running_loop()
        for number, segment in enumerate(segments):
            if number:
                await turns(3)
            await loop.sock_sendall(self.socket, segment)

    async def _more(self) -> bool:
        try:
            async with asyncio.timeout(5):
                data = await asyncio.get_running_loop().sock_recv(self.socket, 1 << 20)
        except ConnectionResetError:
            data, self.is_reset = b"", True
        self.received += data
        return bool(data)

    async def read(self, *, is_head: bool = False) -> Answer | None:
        """Return the next answer; ``None`` when the server closed the connection after the one before."""
        while b"\r\n\r\n" not in self.received:
            if not await self._more() and b"\r\n\r\n" not in self.received:
                assert not self.received, f"cut off: {self.received!r}"
                return None
        head, self.received = self.received.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status = first.split(" ")[:2]
        assert version == "HTTP/1.1", first
        headers = [(name, value) for name, value in (line.split(": ", 1) for line in lines)]
        assert len({name for name, _ in headers}) == len(headers), headers
        length = 0 if is_head or status.startswith("1") else int(dict(headers)["content-length"])
        while len(self.received) < length:
            assert await self._more(), f"cut off: {self.received!r}"
        body, self.received = self.received[:length], self.received[length:]
        return Answer(int(status), headers, body)

    async def read_all(self) -> list[Answer]:
        """Return every answer until the server closes the connection."""
        answers = []
        while (answer := await self.read()) is not None:
            answers.append(answer)
        return answers

    def is_silent(self) -> bool:
        """Return whether the server has sent nothing and not closed the connection."""
        try:
            self.received += self.socket.recv(1 << 20)
        except BlockingIOError:
            return not self.received
        return False

    async def ask(self, request: bytes) -> Answer:
        """Send and read."""
        await self.send(request)
        answer = await self.read()
        assert answer is not None
        return answer

    def finish(self) -> None:
        """Say that nothing more will be sent (FIN), and go on reading."""
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Leave properly."""
        self.socket.close()

    def reset(self) -> None:
        """Leave with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


async def turns(count: int = 10) -> None:
    """Let the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


class Live:
    """A running server."""

    def __init__(self, front: Application, model: Model, protocol: ProtocolFactory, pool: ThreadPoolExecutor) -> None:
        self.front, self.model, self.state, self.protocol, self.pool = front, model, ServerState(), protocol, pool
        self.state.default_headers = DEFAULT_HEADERS
        self.long_ways = 0
        http: Any = protocol
        self.config = uvicorn.Config(self.call, http=http, interface="asgi3", lifespan="off", log_config=None)
        self.config.forwarded_allow_ips = ""  # as in ``bentoml_environment``
        self.config.load()
        self.address = ("", 0)
        self.listening: Any = None
        self.clients: list[Client] = []
        self._before = self._outcomes()

    async def call(self, scope: Any, receive: Any, send: Any) -> None:
        """The front, and how often it was called."""
        self.long_ways += 1
        await self.front(scope, receive, send)

    @property
    def endpoint(self) -> Endpoint:
        return self.front.gateway.endpoints["double"]

    async def leave(self) -> None:
        """Close every client and the server; nothing may be left then."""
        self.listening.close()
        self.model.gate.set()
        for client in self.clients:
            client.close()
        await self.until(lambda: not self.state.connections and not self.endpoint.batcher.queue.backlog)

    async def stop(self) -> None:
        """What uvicorn does when it is told to stop."""
        server = uvicorn.Server(self.config)
        server.server_state, server.servers = self.state, [self.listening]
        server.lifespan = self.config.lifespan_class(self.config)
        await server.shutdown()

    def make_protocol(self) -> Any:
        return self.protocol(config=self.config, server_state=self.state, app_state={})

    async def connect(self, receive_buffer: int | None = None, *, is_known: bool = True) -> Client:
        """Return a new client, once the server knows it, unless that does not matter."""
        client = Client(self.address, receive_buffer)
        self.clients.append(client)
        await asyncio.get_running_loop().sock_connect(client.socket, self.address)
        mine = client.socket.getsockname()
        if is_known:
            connections: set[Any] = self.state.connections
            await self.until(lambda: mine in {connection.client for connection in connections})
        return client

    async def until(self, condition: Callable[[], bool], seconds: float = 5.0) -> None:
        """Wait for what must come true."""
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.001)

    async def plug(self) -> Client:
        """Shut the gate and give the one lane a batch (of the number 0) to wait with."""
        self.model.gate.clear()
        client = await self.connect()
        await client.send(double(0))
        await self.until(lambda: self.model.seen[-1:] == [0])
        return client

    def _outcomes(self) -> Counter[str]:
        found = Counter[str]()
        for sample in (sample for metric in REQUESTS.collect() for sample in metric.samples):
            if sample.name.endswith("_total") and sample.labels["model"] == "double":
                found[sample.labels["outcome"]] += int(sample.value)
        return found

    async def counted(self) -> Counter[str]:
        """Return how requests to the model that doubles ended since this server started."""
        await turns(3)
        return self._outcomes() - self._before


def double(number: int, *, close: bool = False, body: bytes | None = None, headers: bytes = b"") -> bytes:
    """Return a prediction of the model that doubles; its answer is known by heart."""
    body = b'{"instances": [%d]}' % number if body is None else body
    headers += b"connection: close\r\n" if close else b""
    head = b"POST /v1/models/double/predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    return head + b"content-length: %d\r\n%b\r\n%b" % (len(body), headers, body)


async def inner(scope: Any, receive: Any, send: Any) -> None:
    """BentoML's application."""
    await send({"type": "http.response.start", "status": 299, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"inner"})


def make_front(shipped: list[Session], settings: Settings, model: Model, pool: ThreadPoolExecutor) -> Application:
    """Return a front over shipped models and the one that doubles."""
    outputs = [replace(shipped[0].manifest.outputs[0], name="y")]
    manifest = replace(shipped[0].manifest, model="double", version="1.0.0", outputs=outputs)
    engine: Any = SimpleNamespace(run=lambda names, feeds: [2 * feeds["x"] + 1])
    twice = Session(manifest=manifest, card=DOUBLE, assets=Assets(), provider="none", engine=engine)
    endpoints = {"double": make_endpoint(twice, "none", model, FairScheduler(1), settings)}
    for session in shipped:
        runner = InProcessRunner(pool, session.run)
        pace = LatencyModel(0.0001, 0.000001)  # computed on the event loop
        endpoints[session.manifest.model] = make_endpoint(session, "none", runner, FairScheduler(1), settings, pace)
    gateway, access = InferenceGateway(endpoints=endpoints, settings=settings, pool=pool), open_access(settings)
    context, jobs = ServerContext(gateway=gateway, access=access), open_jobs(gateway, access)
    return Application(inner, lambda: context, jobs=lambda: jobs)


@pytest.fixture
def serve(
    shipped_session: Callable[[str], Session], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[Serve]:
    """A server with these settings; when it is left nothing may be left behind, and no error in the log."""
    monkeypatch.setattr("service.server.protocol_factory.SWEEP_SECONDS", 0.02)
    pool = ThreadPoolExecutor(1)

    @asynccontextmanager
    async def live(
        *, wire: bool = True, keep_alive: float = 5.0, send_buffer: int | None = None, tls: Any = None, **settings: Any
    ) -> AsyncIterator[Live]:
        model, loop = Model(), asyncio.get_running_loop()
        front = make_front(
            [shipped_session("viewcount")], Settings(keep_alive_seconds=keep_alive, **settings), model, pool
        )
        strange: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: strange.append(context))
        # With this number asyncio knows it for TCP, and does not make answers in two parts wait for each other.
        with socket.socket(proto=socket.IPPROTO_TCP) as listener:
            if send_buffer is not None:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
            listener.bind(("127.0.0.1", 0))
            here = Live(front, model, ProtocolFactory(front, has_fast_path=wire), pool)
            here.protocol.tls, here.address = tls, listener.getsockname()
            here.listening = await loop.create_server(here.make_protocol, sock=listener, backlog=1000)
            try:
                yield here
                await here.leave()
            finally:
                for connection in list(here.state.connections):
                    connection.transport.abort()
                await turns()
            assert not strange
            warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
            ours = [one for one in warned if one.name != "asyncio" or one.levelno >= logging.ERROR]
            assert not [one for one in ours if getattr(one, "event", None) != "broken_request"]
            caplog.clear()

    yield live
    pool.shutdown()


def run_on(factory: Callable[[], asyncio.AbstractEventLoop], work: Work) -> None:
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(work())


@pytest.fixture
def run() -> Callable[[Work], None]:
    """Runs a test's coroutine on the event loop that uvicorn chooses."""
    return partial(run_on, uvloop.new_event_loop)


@pytest.fixture(params=["asyncio", "uvloop"])
def run_on_both(request: pytest.FixtureRequest) -> Callable[[Work], None]:
    """The same, and on the standard library's, which treats half-closed and full connections in its own way."""
    return partial(run_on, uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop)


@pytest.fixture(scope="session")
def double_card() -> Any:
    """The card of the model that doubles."""
    return DOUBLE


@pytest.fixture(scope="session")
def post() -> Callable[..., bytes]:
    """The bytes of a prediction."""
    return double
