"""Scarcity: no more file descriptors, and no more room on the disk that everything of the server is on."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from time import sleep

from benchmarks.harness.machine import cpu_seconds
from benchmarks.harness.servers import install_artifacts
from chaos.service.faults import DESCRIPTORS
from chaos.service.harness import Harness, Site, offer, workload
from chaos.service.verdict import ChaosVerdict
from chaos.service.worker_kill import kill

TITLE = "no descriptors, no disk"
CONTROL = ""
LIMIT, CONNECTIONS = 128, 300
HELD_SECONDS, BUSY_SHARE, BACK_SECONDS = 3.0, 0.5, 2.0
DISK_KILOBYTES = 32 * 1024
RATE = 200.0


def run(ground: Harness) -> ChaosVerdict:
    """Both."""
    verdict = ChaosVerdict(trial="scarcity")
    with ground.serve("viewcount", faults=["few_descriptors"], **{DESCRIPTORS: str(LIMIT)}) as site:
        _descriptors(site, verdict)
    home = Path(mkdtemp(dir=ground.folder))
    with _tiny_disk(home / "bentoml") as disk:
        if disk is None:
            verdict.notes.append("a disk of its own needs the right to mount one: no full disk was tried")
            return verdict
        install_artifacts(home)
        with ground.serve_at(home, "viewcount") as site:
            _full_disk(site, disk, verdict)
    return verdict


def _descriptors(site: Site, verdict: ChaosVerdict) -> None:
    workers = site.workers()
    with ExitStack() as held:
        for _ in range(CONNECTIONS):
            held.enter_context(socket.create_connection(("127.0.0.1", site.port), timeout=5))
        sleep(0.5)
        used = cpu_seconds(workers)
        sleep(HELD_SECONDS)
        share = (cpu_seconds(workers) - used) / HELD_SECONDS
        opened = max(one.num_fds() for one in workers)
    sleep(BACK_SECONDS)
    statuses = offer(site, workload("viewcount"), (RATE, 2.0), most_connections=LIMIT // 4).statuses
    verdict.expect("the worker lives", "lives", {one.pid for one in workers} == {one.pid for one in site.workers()})
    verdict.at_most("cores used while nothing can be accepted", share, BUSY_SHARE)
    verdict.expect("served again once the connections are gone", statuses, set(statuses) == {"200"})
    lines = len(site.log().splitlines())
    verdict.at_most("lines in the log", lines, 1000)
    verdict.measured["descriptors"] = {"limit": LIMIT, "opened": opened, "busy_cores": round(share, 2), "lines": lines}


@contextmanager
def _tiny_disk(folder: Path) -> Iterator[Path | None]:
    """A disk of 32 megabytes at a place, ``None`` without the right to mount it."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_KILOBYTES}k", "none", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:  # noqa: S603  our own
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S603  our own


def _full_disk(site: Site, disk: Path, verdict: ChaosVerdict) -> None:
    with suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    statuses = offer(site, workload("viewcount"), (RATE, 3.0), patience_seconds=10).statuses
    verdict.expect("with a full disk every request is a 200", statuses, set(statuses) == {"200"})
    kill(site)
    sleep(1)
    after = offer(site, workload("viewcount"), (RATE, 3.0), patience_seconds=10).statuses
    verdict.expect("so it is when a worker must start on it", after, set(after) == {"200"})
    verdict.measured["disk"] = {"full": statuses, "after_a_restart": after}
