"""Real servers, one process tree each: on their cores, ready when every model has answered, ended for certain."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.harness.environments import Unavailable
from benchmarks.harness.machine import end, on_cores, tree
from benchmarks.harness.peers import THREADS, Peer
from benchmarks.harness.protocols import ProtocolCall
from models.paths import REPOSITORY

READY_SECONDS = 120.0
PATIENCE_SECONDS = 10.0
_FOLDER = re.compile(r"(?:/[\w.@+~-]+)+/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server.

    Attributes:
        peer: Which.
        process: Its leader.
        port: On this machine.
        ready_seconds: From its start until every model had answered.
    """

    peer: Peer
    process: "subprocess.Popen[bytes]"
    port: int
    ready_seconds: float

    def tree(self) -> list[psutil.Process]:
        """Return all its processes."""
        return tree(self.process.pid)


def ask(port: int, call: ProtocolCall, timeout: float = 30.0) -> tuple[int, bytes]:
    """Status and body of one answer.

    Raises:
        OSError: If there is none.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("POST", call.path, call.body, call.headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()


@contextmanager
def serving(peer: Peer, interpreter: Path, home: Path, examples: Mapping[str, bytes]) -> Iterator[Server]:
    """A running server of a peer, until the end of the block.

    Args:
        peer: Which.
        interpreter: Of its environment.
        home: A folder for its log and its own files.
        examples: The models it serves, with one valid body each.

    Raises:
        Unavailable: If it does not come up.
    """
    port, spare = free_ports()
    log = home / f"{peer.key}.log"
    started = time.perf_counter()
    with log.open("wb") as output, on_cores(set(peer.cores)):
        process = subprocess.Popen(  # noqa: S603  our own
            [str(interpreter), "-m", *_command(peer, port, spare)],
            env=_environment(peer, port, home, examples),
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        for model, body in examples.items():
            _wait(process, port, peer.envelope.call(model, body), started + READY_SECONDS, log)
        yield Server(peer=peer, process=process, port=port, ready_seconds=time.perf_counter() - started)
    finally:
        stop(process)


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a server's every process: politely, then not."""
    found = tree(process.pid)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    end(found, PATIENCE_SECONDS)
    # What it started meanwhile and did not take into its tree.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(PATIENCE_SECONDS)


def _command(peer: Peer, port: int, spare: int) -> list[str]:
    module = "service" if peer.module is None else f"benchmarks.peers.{peer.module}"
    return [module, *(argument.format(port=port, spare=spare) for argument in peer.arguments)]


def _environment(peer: Peer, port: int, home: Path, served: Iterable[str]) -> dict[str, str]:
    """This process's environment without settings of servers, with the peer's."""
    mine = {k: v for k, v in os.environ.items() if not k.startswith(("LECTERN_", "BENTOML_", "PYTHON"))}
    models = ",".join(served)
    ours = {"LECTERN_PORT": str(port), "LECTERN_MODELS": models, "LECTERN_DEVICE": "cpu"} if peer.is_ours else {}
    bento = {"BENTOML_HOME": str(home / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
    scratch = dict.fromkeys(("HOME", "TMPDIR", "RAY_TMPDIR"), str(home))
    theirs = {"PYTHONPATH": str(REPOSITORY), "PEER_MODELS": models, **peer.settings}
    return {**mine, **scratch, **THREADS, **ours, **bento, **theirs}


def install_artifacts(home: Path, *folders: Path) -> None:
    """Put these artifacts, or every shipped one, into the model store below ``home``."""
    environment = {**os.environ, "BENTOML_HOME": str(home / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
    command = [sys.executable, "-m", "export", "install", *map(str, folders)]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)  # noqa: S603  our own
    if done.returncode:
        raise Unavailable(f"the artifacts cannot be installed: {without_paths(done.stderr)}")


def without_paths(text: str) -> str:
    """Return the text with every folder's name cut off, so that no result says where it was made."""
    return _FOLDER.sub("", text).strip()


def _wait(process: "subprocess.Popen[bytes]", port: int, call: ProtocolCall, deadline: float, log: Path) -> None:
    """Return when the call is answered with 200."""
    last = "no answer"
    while time.perf_counter() < deadline and process.poll() is None:
        with suppress(OSError):
            status, body = ask(port, call, timeout=5)
            if status == 200:
                return
            last = f"status {status}: {body[:200].decode(errors='replace')}"
        time.sleep(0.02)
    ending = "still starting" if process.poll() is None else f"ended with status {process.poll()}"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    raise Unavailable(without_paths(f"not ready: {ending}, {last}; its log ends: {lines[-1] if lines else '(empty)'}"))


def free_ports() -> tuple[int, int]:
    """Two ports of this machine that nobody listens on."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]
