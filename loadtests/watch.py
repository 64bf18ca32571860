"""Watch what server, generator, machine and network used while requests were counted."""

import os
import platform
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import psutil

from loadtests.result import Used
from models.paths import REPOSITORY

PACKAGES = ("locust", "gevent", "geventhttpclient", "numpy", "msgspec")
_MEGABYTE = 1e6


class ProcessWatch:
    """Looks at the machine before and after.

    Args:
        host: The service's address; its processes are looked at when they are on this machine.
    """

    def __init__(self, host: str) -> None:
        self._servers = _server_processes(host)
        self._network = _interface(host)
        self._before = self._look()

    def begin(self) -> None:
        """Count from now on."""
        self._before = self._look()

    def end(self, client_shares: Sequence[float]) -> "Used":
        """Return what was used since it began; the generators' shares they know themselves."""
        now, before = self._look(), self._before
        seconds = now["at"] - before["at"]
        busy = [(now["cpu"].get(one, 0.0) - used) / seconds for one, used in before["cpu"].items()]
        cores = psutil.cpu_count() or 1
        return Used(
            seconds=round(seconds, 3),
            server_cores=round(sum(busy), 3) if busy else None,
            busiest_process=round(max(busy), 3) if busy else None,
            server_processes=len(busy),
            client_share=round(max(client_shares, default=0.0), 3),
            client_cores=round(sum(client_shares), 3),
            machine_share=round((now["busy"] - before["busy"]) / seconds / cores, 3),
            stolen_share=round((now["stolen"] - before["stolen"]) / seconds / cores, 3),
            network_mb=round((now["bytes"] - before["bytes"]) / seconds / _MEGABYTE, 3),
            network_limit_mb=_speed(self._network),
            cores=cores,
            server_mb=_memory_mb(self._servers),
        )

    def _look(self) -> dict[str, Any]:
        times, counters = psutil.cpu_times(), psutil.net_io_counters(pernic=True).get(self._network)
        cpu = {}
        for process in self._servers:
            with suppress(psutil.Error):
                used = process.cpu_times()
                cpu[process.pid] = used.user + used.system
        return {
            "at": perf_counter(),
            "cpu": cpu,
            "busy": times.user + times.nice + times.system,
            "stolen": times.steal,
            "bytes": counters.bytes_sent + counters.bytes_recv if counters else 0,
        }


def _memory_mb(processes: Sequence[psutil.Process]) -> float | None:
    """What they hold, each page once however many share it; where the system does not say, their resident memory."""
    found = []
    for process in processes:
        with suppress(psutil.Error):
            memory = process.memory_full_info()
            found.append(getattr(memory, "pss", memory.rss))
    return round(sum(found) / _MEGABYTE, 1) if found else None


def _server_processes(host: str) -> list[psutil.Process]:
    """Return who listens on the service's port on this machine, with ancestors' other children: its whole tree."""
    found = urlsplit(host)
    port = found.port or (443 if found.scheme == "https" else 80)
    if not _is_loopback(found.hostname or ""):
        return []
    with suppress(psutil.Error):
        listeners = {
            connection.pid
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid
        }
        return _trees(listeners)
    return []


def _trees(listeners: set[int]) -> list[psutil.Process]:
    """Return the processes of the trees with these in them.

    Runners of their own do not listen, but are children of the listener's ancestor in the same session.
    """
    found: dict[int, psutil.Process] = {}
    mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for pid in listeners:
        with suppress(psutil.Error, OSError):
            root, session = psutil.Process(pid), os.getsid(pid)
            while (parent := root.parent()) and parent.pid not in mine and os.getsid(parent.pid) == session:
                root = parent
            for process in (root, *root.children(recursive=True)):
                found[process.pid] = process
    return list(found.values())


def _is_loopback(name: str) -> bool:
    with suppress(OSError):
        return all(str(info[4][0]).startswith(("127.", "::1")) for info in socket.getaddrinfo(name, None))
    return False


def _interface(host: str) -> str:
    """Return the interface that carries the load: the loopback, or the one with the address packets leave from."""
    name = urlsplit(host).hostname or ""
    addresses = psutil.net_if_addrs()
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((name, 9))
        mine = probe.getsockname()[0]
        for interface, known in addresses.items():
            if any(address.address == mine for address in known):
                return str(interface)
    return "lo"


def _speed(interface: str) -> float | None:
    found = psutil.net_if_stats().get(interface)
    return found.speed / 8 if found and found.speed else None


def machine() -> dict[str, Any]:
    """The machine the load comes from, without names or paths."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        return {"cpu": names[0] if names else platform.processor(), **_sizes()}
    return {"cpu": platform.processor(), **_sizes()}


def _sizes() -> dict[str, Any]:
    return {
        "cores": psutil.cpu_count() or 1,
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "load_before": [round(load, 2) for load in os.getloadavg()],
    }


def versions() -> dict[str, str]:
    """Of Python and of what makes the load."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def commit() -> str:
    """Return the commit of the working tree, ``-dirty`` when it has changes, ``unknown`` without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)  # noqa: S603  our own
    return done.stdout.strip() or "unknown"
