"""Ray nodes on this machine: ``python -m tests.service.scoring.ray_nodes start …`` is ``ray start …`` on 127.0.0.1.

Ray takes 127.0.0.1 for somebody's mistake, puts the machine's own address in its place and listens on every interface,
so what it would do to the address is taken out.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from models.paths import REPOSITORY

START_SECONDS, STORE_BYTES = 60, 80_000_000


@dataclass
class Cluster:
    """Nodes that are ended with ``end``; each knows its name by ``NODE``."""

    port: int = field(default_factory=lambda: free_port())
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp")))
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    nodes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """Of whoever speaks to it: where else it would look, and that it must know the token."""
        return {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        }

    def start(self, name: str) -> None:
        """One more node; the first is the head."""
        first = not self.nodes
        where = (
            ["--head", f"--port={self.port}", "--include-dashboard=false", f"--temp-dir={self.folder}"]
            if first
            else [f"--address={self.address}"]
        )
        environment = self.environment() | {"NODE": name}
        del environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"]
        log = self.folder / f"{name}.log"
        with log.open("wb") as said:
            self.nodes[name] = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.service.scoring.ray_nodes", "start", "--block"),
                    *where,
                    *("--node-ip-address=127.0.0.1", "--num-cpus=4", "--disable-usage-stats"),
                    f"--object-store-memory={STORE_BYTES}",
                ],
                cwd=REPOSITORY,
                env=environment,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        until = time.monotonic() + START_SECONDS
        while b"Ray runtime started" not in log.read_bytes():
            assert self.nodes[name].poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)

    def kill(self, name: str) -> None:
        """SIGKILL to everything of a node, as if its machine lost power."""
        node = self.nodes.pop(name)
        for process in processes_of(node.pid):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        node.wait()

    def end(self) -> None:
        """Nothing of it is left."""
        for name in [*self.nodes][::-1]:
            self.kill(name)
        shutil.rmtree(self.folder, ignore_errors=True)


def free_port() -> int:
    """Nobody listens there."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def processes_of(pid: int) -> list[psutil.Process]:
    """Return a process and all that it has started."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def main() -> None:
    """The command line of Ray."""
    from ray._private import services
    from ray.scripts.scripts import main as ray

    services.resolve_ip_for_localhost = lambda host: host
    ray()


if __name__ == "__main__":
    main()
