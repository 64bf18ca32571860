"""Real servers for the end-to-end tests: one process tree each, its own port, its own ``BENTOML_HOME``."""

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil
import pytest

from models.artifact.manifest import MANIFEST_FILE
from models.paths import REPOSITORY

READY_SECONDS = 90
MODELS = sorted(path.parent.name for path in REPOSITORY.glob(f"models/*/trained/*/{MANIFEST_FILE}"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes ``model`` runs for every shipped model; one that takes ``placed`` for both placements."""
    if "model" in metafunc.fixturenames:
        metafunc.parametrize("model", MODELS)
    if "placed" in metafunc.fixturenames:
        metafunc.parametrize("placed", ["server", "process_server"], indirect=True, scope="session")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clean_environment(home: Path, **more: str) -> dict[str, str]:
    """This process's environment without its own settings, with ``home`` as BentoML's."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LECTERN_", "BENTOML_")) and k != "PYTHONPATH"}
    return {**kept, "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True", **more}


@dataclass
class Server:
    """A served process: where it listens, how long it took to be ready, and how to ask it."""

    process: "subprocess.Popen[bytes]"
    port: int
    home: Path
    log: Path
    ready_seconds: float = 0.0
    trust: ssl.SSLContext | None = None
    host: str = "127.0.0.1"
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        limits = httpx.Limits(max_connections=32, max_keepalive_connections=32)
        verify = True if self.trust is None else self.trust
        self.client = httpx.Client(base_url=self.url, timeout=30, limits=limits, trust_env=False, verify=verify)

    @property
    def url(self) -> str:
        return f"{'http' if self.trust is None else 'https'}://{self.host}:{self.port}"

    def get(self, path: str) -> httpx.Response:
        return self.client.get(path)

    def page(self, path: str) -> Any:
        """Return a JSON page that must be there."""
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, model: str, body: Any, **headers: str) -> httpx.Response:
        """Return the answer to a body: bytes go as they are, anything else as JSON."""
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        wanted = {"content-type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
        return self.client.post(f"/v1/models/{model}/predict", content=content, headers=wanted)

    def predict(self, model: str, *instances: Any, **more: Any) -> list[Any]:
        """Return the predictions of instances that must be right."""
        answer = self.post(model, {"instances": list(instances), **more})
        assert answer.status_code == 200, answer.text
        predictions: list[Any] = answer.json()["predictions"]
        return predictions

    def wait_ready(self) -> None:
        """Return when ``/readyz`` says 200; fail with the log when the process ends or time is up."""
        started = time.perf_counter()
        while time.perf_counter() - started < READY_SECONDS:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(httpx.HTTPError):
                if self.client.get("/readyz", timeout=2).status_code == 200:
                    self.ready_seconds = time.perf_counter() - started
                    return
            time.sleep(0.02)
        pytest.fail(f"not ready, exit status {self.process.poll()}:\n{self.log.read_text()[-4000:]}")

    def tree(self) -> list[psutil.Process]:
        """Return the process and all its descendants."""
        return tree(self.process.pid)

    def stop(self) -> None:
        """End every process of the tree, politely, then not."""
        self.client.close()
        if self.process.poll() is None:
            end(self.process)


def tree(leader: int) -> list[psutil.Process]:
    """Return a process and all its descendants, the elders first."""
    root = psutil.Process(leader)
    return [root, *root.children(recursive=True)]


def end(process: "subprocess.Popen[Any]", patience: float = 10) -> None:
    """End a running process and its descendants; BentoML gives each of its workers a process group of its own."""
    found = tree(process.pid)
    process.send_signal(signal.SIGINT)
    _, alive = psutil.wait_procs(found, timeout=patience)
    for one in alive:  # the elders first: they would start new children
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait(10)


def start(
    arguments: list[str],
    environment: Mapping[str, str],
    port: int,
    cwd: Path,
    home: Path,
    trust: Any = None,
    under: Sequence[str] = (),
    host: str = "127.0.0.1",
) -> Server:
    """Start a server in a process group of its own and wait until it is ready.

    ``trust`` is for one that speaks TLS; ``under`` stands before its command, and becomes it; at ``host`` it is asked.
    """
    log = home / f"server-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*under, sys.executable, "-m", *arguments],
            env=environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    found = Server(process, port, home, log, trust=trust, host=host)
    try:
        found.wait_ready()
    except BaseException:
        found.stop()
        raise
    return found


Launch = Callable[..., Server]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def run() -> Run:
    """Run ``python …`` to its end in a clean environment; ``home`` is its ``BENTOML_HOME``."""

    def run_module(
        *arguments: str, home: Path, cwd: Path = REPOSITORY, timeout: float = 60, **settings: str
    ) -> "subprocess.CompletedProcess[str]":
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env=clean_environment(home, **settings),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, error = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            end(process, patience=2)
            out, error = process.communicate()
            pytest.fail(f"{' '.join(arguments)} was still running after {timeout} s; it said:\n{(out + error)[:4000]}")
        return subprocess.CompletedProcess(arguments, process.returncode, out, error)

    return run_module


@pytest.fixture(scope="session")
def new_home(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Callable[[], Path]:
    """Makes a ``BENTOML_HOME`` with every shipped model in it."""

    def make() -> Path:
        home = tmp_path_factory.mktemp("home")
        done = run("-m", "export", "install", home=home)
        assert done.returncode == 0, done.stderr
        return home

    return make


@pytest.fixture(scope="session")
def launch(new_home: Callable[[], Path], run: Run) -> Iterator[Launch]:
    """Starts servers with settings, e.g. ``launch(LECTERN_RUNNERS="process")``; all are stopped at the end.

    Artifacts beside the shipped ones are given by their folders; ``host`` is where it is asked, as URLs have it.
    """
    running: list[Server] = []

    def launch_one(
        *artifacts: str,
        trust: ssl.SSLContext | None = None,
        under: Sequence[str] = (),
        host: str = "127.0.0.1",
        **settings: str,
    ) -> Server:
        home, port = new_home(), free_port()
        if artifacts:
            done = run("-m", "export", "install", *artifacts, home=home)
            assert done.returncode == 0, done.stderr
        wanted = {"LECTERN_DEVICE": "cpu", "LECTERN_PORT": str(port), **settings}
        environment = clean_environment(home, **wanted)
        running.append(start(["service"], environment, port, REPOSITORY, home, trust, under, host))
        return running[-1]

    yield launch_one
    for one in running:
        one.stop()


@pytest.fixture(scope="session")
def launch_bento() -> Iterator[Launch]:
    """Starts ``bentoml serve TAG`` outside the repository, without any setting of ours."""
    running: list[Server] = []

    def launch_one(tag: str, home: Path, cwd: Path) -> Server:
        port = free_port()
        arguments = ["bentoml", "serve", tag, "--host", "127.0.0.1", "--port", str(port)]
        running.append(start(arguments, clean_environment(home), port, cwd, home))
        return running[-1]

    yield launch_one
    for one in running:
        one.stop()


@pytest.fixture(scope="session")
def server(launch: Launch) -> Server:
    """Every model, runners inside the gateway."""
    return launch(LECTERN_RUNNERS="embedded")


@pytest.fixture(scope="session")
def process_server(launch: Launch) -> Server:
    """Every model, each family's runner in its own process."""
    return launch(LECTERN_RUNNERS="process")


@pytest.fixture(scope="session")
def placed(request: pytest.FixtureRequest) -> Server:
    """Both servers, one after the other."""
    found: Server = request.getfixturevalue(request.param)
    return found
