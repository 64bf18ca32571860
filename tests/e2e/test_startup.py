"""How the service comes up, refuses to come up, and goes down."""

import ast
import json
import shutil
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from models.artifact.manifest import MODEL_FILE
from models.runtime.session import has_cuda

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

Refusal = Callable[..., str]
READY_BAR_SECONDS = 12  # 4 s is promised on a quiet machine; tests share theirs
STOP_BAR_SECONDS = 10


@pytest.fixture(scope="module")
def home(new_home: Callable[[], Path]) -> Path:
    """One model store for all the servers that do not start."""
    return new_home()


@pytest.fixture
def refusal(run: Any, home: Path, unused_port: int) -> Refusal:
    """The one line with which ``python -m service`` refuses to start."""

    def refuse(at: Path = home, **settings: str) -> str:
        wanted = {"LECTERN_PORT": str(unused_port), "LECTERN_DEVICE": "cpu", **settings}
        done = run("-m", "service", home=at, timeout=20, **wanted)
        assert done.returncode > 0
        assert "Traceback" not in done.stdout + done.stderr, done.stdout[:3000] + done.stderr[:3000]
        lines = done.stderr.splitlines()
        assert len(lines) == 1, done.stderr[:3000]
        line = str(json.loads(lines[0])["message"] if wanted.get("LECTERN_LOG") != "text" else lines[0])
        assert line.startswith("lectern: ")
        assert len(line.splitlines()) == 1
        return line

    return refuse


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_service_module_never_imports_the_torch_side(run: Any, home: Path) -> None:
    """Importing the gateway with every model open to it loads neither torch nor onnx nor matplotlib."""
    code = "import service.app, sys; print(sorted({n.split('.')[0] for n in sys.modules}))"
    done = run("-c", code, home=home, LECTERN_DEVICE="cpu")
    assert done.returncode == 0, done.stderr
    loaded = set(ast.literal_eval(done.stdout.splitlines()[-1]))
    assert {"service", "onnxruntime", "bentoml"} <= loaded
    assert not {"torch", "onnx", "onnxscript", "matplotlib", "scipy", "pooch"} & loaded


def test_the_running_gateway_has_no_torch_in_memory(server: Any) -> None:
    """None of the server's processes has mapped a file of torch."""
    maps = [entry.path for one in server.tree() for entry in one.memory_maps()]
    assert any("onnxruntime" in path for path in maps)
    assert not [path for path in maps if "/torch/" in path or "/matplotlib/" in path]


def test_the_only_port_is_the_public_one(placed: Any) -> None:
    """BentoML's supervisor takes commands on a port of its own, from whoever connects: start this program as me."""
    ports = {
        one.laddr.port
        for process in placed.tree()
        for one in process.net_connections("inet")
        if one.status == psutil.CONN_LISTEN or one.type == socket.SOCK_DGRAM
    }
    assert ports == {placed.port}


def test_the_runners_sockets_are_their_users_alone(process_server: Any) -> None:
    """Arrays travel to the runners by pickle: who could write there could run anything."""
    sockets = {
        Path(one.laddr)
        for process in process_server.tree()
        for one in process.net_connections("unix")
        if str(one.laddr).endswith(".sock")
    }
    assert len(sockets) >= 4
    assert {stat.S_IMODE(one.parent.stat().st_mode) for one in sockets} == {0o700}


def test_every_model_is_ready_within_seconds(placed: Any) -> None:
    """From the start of the process to the first 200 of /readyz."""
    sys.stdout.write(f"ready after {placed.ready_seconds:.2f} s\n")
    assert placed.ready_seconds <= READY_BAR_SECONDS


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("LECTERN_PROT", "3000", "unknown setting LECTERN_PROT; did you mean LECTERN_PORT?"),
        ("LECTERN_PORT", "70000", "LECTERN_PORT must be "),
        ("LECTERN_PORT", "http", "LECTERN_PORT must be "),
        ("LECTERN_WORKERS", "0", "LECTERN_WORKERS must be "),
        ("LECTERN_DEVICES", "view-count=cpu", "LECTERN_DEVICES: no model 'view-count' is served"),
        ("LECTERN_DEVICE", "tpu", "LECTERN_DEVICE must be "),
        ("LECTERN_RUNNERS", "remote", "LECTERN_RUNNERS must be "),
        ("LECTERN_REQUEST_TIMEOUT_SECONDS", "-1", "LECTERN_REQUEST_TIMEOUT_SECONDS must be "),
        ("LECTERN_LOG", "yaml", "LECTERN_LOG must be "),
        ("LECTERN_TRUSTED_KEYS", "nonsense", "trusted key 1: found none"),
        ("LECTERN_TRUSTED_KEYS", ",", "trusted keys: found none"),
        ("LECTERN_MODELS", "image:9.9.9", "model image:9.9.9 is not in the model store"),
        ("LECTERN_MODELS", "nobody", "model nobody"),
        ("LECTERN_MODELS", "image,image:1.0.0", "two versions of one model"),
    ],
)
def test_a_wrong_setting_is_one_line(refusal: Refusal, name: str, value: str, words: str) -> None:
    """The service ends at once and names the variable or the model."""
    assert words in refusal(**{name: value})


def test_an_empty_model_store_is_one_line(refusal: Refusal, tmp_path: Path) -> None:
    """The line says how to fill it."""
    assert "python -m export install" in refusal(tmp_path)


@pytest.mark.parametrize("named", ["/proc/nobody/home", "/dev/null/home"])
def test_a_home_that_cannot_be_made_is_one_line(refusal: Refusal, run: Any, named: str) -> None:
    """The service and what fills its store name the variable, and say what it must be."""
    assert f"BENTOML_HOME must be a folder that this user can write, got {named}" in refusal(Path(named))
    done = run("-m", "export", "install", home=Path(named))
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert "BENTOML_HOME must be a folder that this user can write" in done.stderr


def test_the_last_line_says_where_it_is(launch: Any) -> None:
    """When all workers are ready one line says so, once, whatever Kubernetes says of a Service of our name."""
    links = {"LECTERN_PREDICTOR_SERVICE_HOST": "10.0.0.1", "LECTERN_PREDICTOR_PORT": "tcp://10.0.0.1:80"}
    server = launch(LECTERN_WORKERS="2", LECTERN_MODELS="viewcount,molecule", **links)
    deadline = time.monotonic() + 10
    while (last := json.loads(server.log.read_text().splitlines()[-1])).get("event") != "serving":
        assert time.monotonic() < deadline, last
        time.sleep(0.05)
    assert {name: last[name] for name in ("models", "workers", "url")} == {"models": 2, "workers": 2, "url": server.url}
    assert f"curl {server.url}/v1/models; documentation: {server.url}/; stop: Ctrl-C" in last["message"]
    assert server.log.read_text().count('"serving"') == 1


def test_a_used_port_is_one_line(refusal: Refusal, unused_port: int) -> None:
    """The line names the address."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", unused_port))
        other.listen()
        assert f"127.0.0.1:{unused_port}" in refusal()


def test_a_second_server_on_one_home_is_one_line(refusal: Refusal, server: Any, unused_port: int) -> None:
    """It would delete the first one's metrics; the first goes on answering."""
    assert f"another server uses {server.home}" in refusal(server.home, LECTERN_PORT=str(unused_port))
    assert server.get("/readyz").status_code == 200


@pytest.mark.parametrize("placement", ["embedded", "process"])
def test_a_flipped_bit_in_the_store_is_one_line(refusal: Refusal, home: Path, tmp_path: Path, placement: str) -> None:
    """The service ends and names the artifact; it does not try again for ever."""
    damaged = tmp_path / "home"
    shutil.copytree(home, damaged, ignore=shutil.ignore_patterns("lectern.lock"))
    model = next(damaged.glob(f"models/molecule/*/{MODEL_FILE}"))
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    line = refusal(damaged, LECTERN_RUNNERS=placement)
    assert "molecule" in line
    assert "sha256" in line


@pytest.mark.parametrize("placement", ["embedded", "process"])
def test_an_unsigned_artifact_is_one_line(
    refusal: Refusal, home: Path, run: Any, tmp_path: Path, placement: str
) -> None:
    """Where signatures are asked for, the service ends with the artifact that has none, in either form of the log."""
    made = run("-m", "export", "keygen", str(tmp_path / "key"), home=home)
    trusted = made.stdout.strip().partition("=")[2]
    line = refusal(LECTERN_TRUSTED_KEYS=trusted, LECTERN_RUNNERS=placement)
    assert "not signed" in line
    assert "not signed" in refusal(LECTERN_TRUSTED_KEYS=trusted, LECTERN_RUNNERS=placement, LECTERN_LOG="text")


@pytest.mark.skipif(has_cuda(), reason="this machine has a GPU")
@pytest.mark.parametrize("placement", ["auto", "embedded"])
def test_a_missing_gpu_is_one_line(refusal: Refusal, placement: str) -> None:
    """``LECTERN_DEVICE=cuda`` without a GPU ends the service; it neither falls back nor tries again for ever."""
    assert "LECTERN_DEVICE=cuda" in refusal(LECTERN_DEVICE="cuda", LECTERN_RUNNERS=placement)


@pytest.mark.skipif(has_cuda(), reason="this machine has a GPU")
def test_auto_without_a_gpu_serves_and_says_so(launch: Any) -> None:
    """``LECTERN_DEVICE=auto`` computes on the CPU, with every batch filled up where that is asked, and names it."""
    settings = {"LECTERN_DEVICE": "auto", "LECTERN_DEVICES": "viewcount=cpu", "LECTERN_PADDING": "always"}
    server = launch(LECTERN_MODELS="viewcount,molecule", **settings)
    models = server.get("/v1/models").json()["models"]
    assert {model["name"]: model["provider"] for model in models} == dict.fromkeys(
        ("viewcount", "molecule"), "CPUExecutionProvider"
    )
    assert server.predict("molecule", {"atoms": ["C", "O"], "bonds": [[0, 1]]})[0]["label"] == "non-mutagenic"


@pytest.mark.parametrize("placement", ["embedded", "process"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_every_process(launch: Any, placement: str, number: signal.Signals) -> None:
    """Ctrl-C and ``kill``: status 0, no process left, the port free, all within ten seconds."""
    server = launch(LECTERN_RUNNERS=placement)
    found = server.tree()
    assert len(found) >= (6 if placement == "process" else 2)
    started = time.perf_counter()
    server.process.send_signal(number)
    status = server.process.wait(STOP_BAR_SECONDS)
    _, alive = psutil.wait_procs(found, timeout=STOP_BAR_SECONDS - (time.perf_counter() - started))
    sys.stdout.write(f"gone after {time.perf_counter() - started:.2f} s, status {status}\n")
    assert alive == []
    assert status == 0
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", server.port))
    assert "Traceback" not in server.log.read_text()
