"""Every shipped model behind a real server on 127.0.0.1, by wire and by front, and a client that believes nothing."""

import asyncio
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState

from models.artifact.manifest import MANIFEST_FILE
from models.paths import REPOSITORY
from models.runtime.predictor import LatencyModel
from models.runtime.session import Session
from service.inference.endpoint import make_endpoint
from service.inference.gateway import InferenceGateway
from service.inference.scheduler import FairScheduler
from service.runners.backends import InProcessRunner
from service.server.context import ServerContext
from service.server.protocol_factory import ProtocolFactory
from service.server.routes import Application
from service.settings import Settings

MODELS = sorted(path.parent.name for path in REPOSITORY.glob(f"models/*/trained/*/{MANIFEST_FILE}"))
JSON = "application/json"
# A refusal that takes longer would hold up everybody's answers, were it on the event loop.
MOST_REFUSAL_SECONDS = 0.1
TRIES = 4  # on a busy machine the same work takes three times as much CPU time now and then


@dataclass
class Answer:
    """Describe what a client saw."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def prediction(self) -> Any:
        """Return the one prediction of an answer that must be right."""
        assert self.status == 200, self
        (only,) = self.json["predictions"]
        return only


def read_answer(line: socket.socket) -> Answer:
    """Return one whole answer, well-formed to the last byte; anything else is an error, a reset too."""
    received = b""
    while b"\r\n\r\n" not in received:
        data = line.recv(1 << 20)
        assert data, f"closed without an answer: {received!r}"
        received += data
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    assert first.startswith("HTTP/1.1 "), first
    headers = dict(entry.split(": ", 1) for entry in lines)
    length = int(headers["content-length"])
    while len(body) < length:
        data = line.recv(1 << 20)
        assert data, "cut off"
        body += data
    assert len(body) == length, body[length:]
    return Answer(int(first.split(" ")[1]), headers, body)


class Way:
    """One way to the models, below ASGI or not, over one connection that is opened again when it is closed."""

    def __init__(self, live: "Live", address: tuple[str, int]) -> None:
        self.live, self.address = live, address
        self.line: socket.socket | None = None

    def raw(self, content: bytes, *, alone: bool = True) -> Answer:
        """Return the answer to these bytes; ``alone`` takes a connection for them and nothing else."""
        if alone:
            with socket.create_connection(self.address, 20) as line:
                line.sendall(content)
                return read_answer(line)
        if self.line is None:
            self.line = socket.create_connection(self.address, 20)
            self.line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.line.sendall(content)
        answer = read_answer(self.line)
        if answer.headers.get("connection") == "close":
            self.close()
        return answer

    def ask(self, model: str, body: bytes, media_type: str | None = JSON, *headers: str) -> Answer:
        """Return the answer to a POST of a body."""
        kind = () if media_type is None else (f"content-type: {media_type}",)
        lines = (
            f"POST /v1/models/{model}/predict HTTP/1.1", "host: x", f"content-length: {len(body)}", *kind, *headers,
        )  # fmt: skip
        return self.raw("\r\n".join((*lines, "", "")).encode("latin-1") + body, alone=False)

    def close(self) -> None:
        if self.line is not None:
            self.line.close()
            self.line = None


class Live:
    """Two listening sockets before one gateway, served by a thread of their own."""

    def __init__(self, sessions: list[Session]) -> None:
        self.sessions = sessions
        self.pools = [ThreadPoolExecutor(1), ThreadPoolExecutor(1)]
        self.loop: Any = uvloop.new_event_loop()
        self.strange: list[Any] = []
        self.loop.set_exception_handler(lambda _, context: self.strange.append(context))
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.addresses = asyncio.run_coroutine_threadsafe(self._listen(), self.loop).result(20)

    async def _listen(self) -> dict[str, tuple[str, int]]:
        settings, lanes = Settings(), FairScheduler(1)
        self.endpoints = {}
        for session in self.sessions:
            runner = InProcessRunner(self.pools[0], session.run)
            made = make_endpoint(session, "none", runner, lanes, settings, LatencyModel(0.0001, 0.00001))
            self.endpoints[made.name] = made
        self.gateway = InferenceGateway(endpoints=self.endpoints, settings=settings, pool=self.pools[1])
        context = ServerContext(gateway=self.gateway)
        front = Application(_no_inner, lambda: context)
        found = {}
        for name, protocol in (
            ("wire", ProtocolFactory(front)),
            ("front", ProtocolFactory(front, has_fast_path=False)),
        ):
            http: Any = protocol
            state = ServerState()
            state.default_headers = [(b"server", b"uvicorn")]
            config = uvicorn.Config(front, http=http, interface="asgi3", lifespan="off", log_config=None)
            config.load()
            listening = await asyncio.get_running_loop().create_server(
                lambda http=http, config=config, state=state: http(config=config, server_state=state, app_state={}),
                "127.0.0.1", 0,
            )  # fmt: skip
            found[name] = listening.sockets[0].getsockname()
        return found

    @property
    def loop_seconds(self) -> float:
        """CPU time of the event loop."""
        return time.clock_gettime(time.pthread_getcpuclockid(self.thread.ident or 0))

    @property
    def seconds(self) -> float:
        """CPU time of the event loop and of the threads beside it."""
        threads = [thread for pool in self.pools for thread in pool._threads]
        return self.loop_seconds + sum(
            time.clock_gettime(time.pthread_getcpuclockid(thread.ident or 0)) for thread in threads
        )

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        for pool in self.pools:
            pool.shutdown()
        assert not self.strange


async def _no_inner(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("nothing here is BentoML's")


@pytest.fixture(scope="session")
def live(shipped_session: Callable[[str], Session]) -> Iterator[Live]:
    """The server, once per session."""
    server = Live([shipped_session(name) for name in MODELS])
    yield server
    server.stop()


@pytest.fixture(scope="session", params=["wire", "front"])
def way(request: pytest.FixtureRequest, live: Live) -> Iterator[Way]:
    """Both ways, one after the other."""
    found = Way(live, live.addresses[request.param])
    yield found
    found.close()


@pytest.fixture(scope="session")
def good(live: Live) -> Callable[[str], tuple[bytes, bytes]]:
    """A model's example as a request body, and the answer that is right: the predictor's own."""

    def make(model: str) -> tuple[bytes, bytes]:
        endpoint = live.endpoints[model]
        example = endpoint.predictor.card.example(endpoint.predictor.assets)
        answer = endpoint.payloads.write(endpoint.predictor.predict([example]))
        return msgspec.json.encode({"instances": [example]}), answer

    known = {model: make(model) for model in MODELS}
    return known.__getitem__


Refuse = Callable[..., Answer]


@pytest.fixture
def refuse(way: Way, good: Callable[[str], tuple[bytes, bytes]]) -> Refuse:
    """Asks for a refusal and checks it: its form, its time, and that the next good request is answered right."""

    def check(model: str, body: bytes, status: int, code: str, media_type: str | None = JSON, *headers: str) -> Answer:
        spent = []
        while len(spent) < TRIES and min(spent, default=math.inf) > MOST_REFUSAL_SECONDS:
            before = way.live.seconds
            answer = way.ask(model, body, media_type, *headers)
            spent.append(way.live.seconds - before)
            check_problem(answer, status, code)
        assert min(spent) < MOST_REFUSAL_SECONDS, f"{min(spent) * 1000:.0f} ms"
        request, expected = good(model)
        assert way.ask(model, request).body == expected
        return answer

    return check


def check_problem(answer: Answer, status: int, code: str) -> None:
    """A well-formed problem, and nothing else in it."""
    assert (answer.status, answer.json["code"]) == (status, code), answer
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(answer.json) == {"status", "code", "error", "request_id", "retryable", "errors"}
    assert (answer.json["status"], answer.json["retryable"]) == (status, status in (408, 503, 504))
    assert answer.json["request_id"] == answer.headers["x-request-id"]
    assert answer.json["error"]
    for fault in answer.json["errors"]:
        assert set(fault) == {"loc", "reason"}
        assert 0 < len(fault["reason"]) < 200


@pytest.fixture(scope="session")
def problem() -> Callable[[Answer, int, str], None]:
    """The check of one refusal's form."""
    return check_problem
