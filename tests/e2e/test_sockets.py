"""No command reaches out: sockets are counted below Python, where native code cannot hide them."""

import ipaddress
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from models.paths import REPOSITORY

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

CONTROL_SECONDS = 40.0
# What by itself keeps a library from reporting its use would hide a missing setting of ours.
HINTS = ("CI", "TF_BUILD", "GITHUB_ACTIONS", "CIRCLECI", "TRAVIS", "JENKINS_URL", "CODEBUILD_BUILD_ID")
SETTINGS = ("ORT_DISABLE_TELEMETRY", "BENTOML_DO_NOT_TRACK")
ADDRESS = re.compile(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"')
TRAIN_AND_EXPORT = """
from dataclasses import replace
from pathlib import Path
from export.certify import export_run
from models.train.__main__ import choose_recipe, train
recipe = choose_recipe("viewcount", "mine", None)
short = replace(recipe, plan=replace(recipe.plan, epochs=1))
train(short, "mine", data=Path("views.csv"), seed=0, runs=Path("runs"), quiet=True)
print(export_run("mine", "0.0.1", runs=Path("runs"), target=Path("artifact")))
"""


def outside(trace: Path) -> list[str]:
    """Return the calls of a trace that name an address which is not this machine's own."""
    calls = trace.read_text(errors="replace").splitlines() if trace.exists() else []
    pairs = [(call, match[1] or match[2]) for call in calls if (match := ADDRESS.search(call))]
    return [call for call, address in pairs if not ipaddress.ip_address(address).is_loopback]


def tracer(trace: Path) -> list[str]:
    """Return what stands before a command whose calls, and whose children's, are to be written into ``trace``."""
    calls = "trace=connect,sendto,sendmsg,sendmmsg"
    unset = [word for name in (*HINTS, *SETTINGS) for word in ("-u", name)]
    return ["env", *unset, "strace", "-D", "-f", "-qq", "--seccomp-bpf", "-e", calls, "-o", str(trace)]


@pytest.fixture(scope="module", autouse=True)
def _strace(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip where no process may be traced."""
    trace = tmp_path_factory.mktemp("strace") / "trace"
    if shutil.which("strace") is None or subprocess.run([*tracer(trace), "true"], capture_output=True).returncode:
        pytest.skip("strace is missing or may not trace here: apt-get install strace")


@pytest.fixture
def traced(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Start ``python …`` under strace in an empty home; ends what is still running."""
    running: list[subprocess.Popen[bytes]] = []

    def run(name: str, *arguments: str, **environment: str) -> "subprocess.Popen[bytes]":
        (tmp_path / name).mkdir()
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("LECTERN_", "BENTOML_", "PYTEST"))}
        settings = {"HOME": str(tmp_path / name), "PYTHONPATH": str(REPOSITORY), **environment}
        with (tmp_path / f"{name}.log").open("wb") as log:
            command = [*tracer(tmp_path / f"{name}.trace"), sys.executable, *arguments]
            there = {"cwd": environment.get("PWD", str(REPOSITORY)), "env": inherited | settings}
            running.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **there))  # type: ignore[call-overload]
        return running[-1]

    yield run
    for one in running:
        one.kill()
        one.wait(10)


def wait_for(found: Callable[[], Any], seconds: float = CONTROL_SECONDS) -> float:
    """Return how long it took until something was found; fails when it never is."""
    started = time.perf_counter()
    while not found():
        assert time.perf_counter() - started < seconds
        time.sleep(0.1)
    return time.perf_counter() - started


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))",
        "import socket; socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).connect_ex(('2001:db8::1', 9))",
        "import os, socket; os.fork() or socket.socket().connect_ex(('192.0.2.1', 9))",
    ],
)
def test_a_socket_is_seen(code: str, traced: Callable[..., Any], tmp_path: Path) -> None:
    """The control: whatever a program or its children call outside this machine is counted; loopback is not."""
    loopback = "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))"
    traced("inside", "-c", loopback).wait(20)
    # A connection that nobody answers would keep its caller for minutes: it is seen as it begins.
    traced("reaching", "-c", code)
    wait_for(lambda: outside(tmp_path / "reaching.trace"))
    wait_for(lambda: "127.0.0.1" in (tmp_path / "inside.trace").read_text())
    assert outside(tmp_path / "inside.trace") == []


def write_inputs(folder: Path) -> None:
    """A table to train on, and a row to score."""
    days = [date(2020, 1, 1) + timedelta(days=number) for number in range(550)]
    rows = [f"{day},{500 + number}" for number, day in enumerate(days)]
    (folder / "views.csv").write_text("\n".join(["date,views", *rows]) + "\n")
    (folder / "in.jsonl").write_text('{"text": "I saw a saw"}\n')


def test_no_command_reaches_out(traced: Callable[..., Any], launch: Any, tmp_path: Path) -> None:
    """Serving, scoring, training, exporting and testing open no socket to another machine, nor leave a device's id.

    What ONNX Runtime reports it sends ten seconds after its import: the server lives for longer than that took here.
    """
    write_inputs(tmp_path)
    native = "import onnxruntime, time; time.sleep(300)"
    started = time.perf_counter()
    traced("control", "-c", native)
    (tmp_path / "serve").mkdir()
    trace = tmp_path / "serve.trace"
    settings = {"HOME": str(tmp_path / "serve"), "LECTERN_RUNNERS": "process", "BENTOML_DO_NOT_TRACK": "False"}
    server = launch(under=tracer(trace), LECTERN_WORKERS="2", **settings)
    ready = time.perf_counter()
    bento = {"BENTOML_HOME": str(server.home), "PWD": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    commands = {
        "score": ["-m", "service.scoring", "run", "tagging", "in.jsonl", "out.jsonl", "--workers", "2"],
        "install": ["-m", "export", "install"],
        "train": ["-c", TRAIN_AND_EXPORT],
        "test": ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"{REPOSITORY}/tests/test_family_contract.py", "-x"],
    }
    for name, arguments in commands.items():
        assert traced(name, *arguments, **bento).wait(120) == 0, (tmp_path / f"{name}.log").read_text()[-2000:]
    for model in ("viewcount", "tagging"):
        example = server.page(f"/v1/models/{model}")["example"]
        assert server.post(model, example["request"]).json() == example["response"]
    wait_for(lambda: outside(tmp_path / "control.trace"))
    took = time.perf_counter() - started
    wait_for(lambda: time.perf_counter() - ready > took)
    server.stop()
    assert "127.0.0.1" in trace.read_text() or "AF_UNIX" in trace.read_text()
    for name in ("serve", *commands):
        assert outside(tmp_path / f"{name}.trace") == [], name
        assert not list((tmp_path / name).rglob("*onnxruntime*")), name
    assert list((tmp_path / "control").rglob("*onnxruntime*"))


@pytest.mark.parametrize(
    "module", ["models.runtime.session", "export.certify", "export.device", "benchmarks.batch.plain"]
)
def test_nothing_imports_the_engine_before_its_setting(module: str) -> None:
    """Whichever module comes first, ONNX Runtime finds its setting: it looks once, when it is imported."""
    code = f"""
import os, sys
class Look:
    def find_spec(self, name, *_):
        if name == "onnxruntime":
            print("found", os.environ.get("ORT_DISABLE_TELEMETRY"))
sys.meta_path.insert(0, Look())
import {module}
"""
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.stdout.split("\n")[0] == "found 1", done.stderr
