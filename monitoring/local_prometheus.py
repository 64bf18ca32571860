"""A Prometheus of our own: its configuration, its process, and what it answers."""

import contextlib
import json
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from models.paths import REPOSITORY
from monitoring.debian import NotToBeHad, Programs

CONFIGURATION = REPOSITORY / "monitoring" / "prometheus.yml"
# What every alert's link to the runbook begins with.
DOCS_LABEL, DOCS = "lectern_docs", REPOSITORY / "docs"
READY_SECONDS = 30.0
STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrapeTarget:
    """Describe what is watched.

    Attributes:
        address: Host and port.
        key_file: Holds an API key with the role ``metrics``; None where the service asks for none.
        scheme: ``http`` or ``https``.
        seconds: Between two scrapes, and between two evaluations of the rules.
    """

    address: str
    key_file: Path | None = None
    scheme: str = "http"
    seconds: int = 15


def configuration(target: ScrapeTarget) -> dict[str, Any]:
    """Return the committed configuration, aimed at one target."""
    found: dict[str, Any] = yaml.safe_load(CONFIGURATION.read_text())
    found["global"] = {
        "scrape_interval": f"{target.seconds}s",
        "evaluation_interval": f"{target.seconds}s",
        "external_labels": {DOCS_LABEL: DOCS.as_uri()},
    }
    found["rule_files"] = [str(CONFIGURATION.parent / pattern) for pattern in found["rule_files"]]
    (job,) = found["scrape_configs"]
    job["static_configs"] = [{"targets": [target.address]}]
    job["scheme"] = target.scheme
    if target.key_file is not None:
        job["authorization"] = {"type": "Bearer", "credentials_file": str(target.key_file.resolve())}
    return found


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running one.

    Attributes:
        url: Of its page and its API.
        process: The server.
        pages: Where its pages are; Debian ships only the older ones.
    """

    url: str
    process: "subprocess.Popen[bytes]"
    pages: str = "/"

    def page(self, name: str) -> str:
        """Return the address of a page for people: ``alerts``, ``graph``, ``rules`` or ``targets``."""
        return f"{self.url}{self.pages}{name}"

    def ask(self, path: str, **parameters: Any) -> Any:
        """Return the data of an API call.

        Raises:
            ValueError: If it was refused; the message is Prometheus' own.
        """
        query = urllib.parse.urlencode(parameters, doseq=True)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=30) as answer:  # noqa: S310
                page = json.load(answer)
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error)["error"]) from error
        return page["data"]

    def query(self, expression: str, **more: Any) -> list[Mapping[str, Any]]:
        """Return the series of an expression now, each with ``metric`` and ``value``."""
        found: list[Mapping[str, Any]] = self.ask("query", query=expression, **more)["result"]
        return found

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[Mapping[str, Any]]:
        """Return the series of an expression over a time, each with ``metric`` and ``values``."""
        data = self.ask("query_range", query=expression, start=start, end=end, step=step)
        found: list[Mapping[str, Any]] = data["result"]
        return found

    def number(self, expression: str) -> float:
        """Return the one number that an expression is; NaN if it is none or several."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if len(found) == 1 else float("nan")

    def stop(self) -> None:
        """End it, politely, then not."""
        if self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def begin(programs: Programs, target: ScrapeTarget, folder: Path, port: int) -> Prometheus:
    """Start one on 127.0.0.1 and wait until it is ready.

    Args:
        programs: To run.
        target: To watch.
        folder: For its configuration, data and log; created if need be.
        port: To listen on.

    Raises:
        NotToBeHad: If it ends at once or is not ready in time; the message has its last words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / "prometheus.yml"
    written.write_text(yaml.safe_dump(configuration(target)))
    arguments = [
        str(programs.prometheus),
        f"--config.file={written}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        *([f"--web.local-assets={programs.pages}"] if programs.pages else []),
    ]
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    found = Prometheus(f"http://127.0.0.1:{port}", process, "/classic/" if programs.pages else "/")
    try:
        _wait_ready(found, log)
    except BaseException:
        found.stop()
        raise
    return found


def _wait_ready(prometheus: Prometheus, log: Path) -> None:
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until and prometheus.process.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{prometheus.url}/-/ready", timeout=2).close()  # noqa: S310
            return
        time.sleep(0.05)
    last = (log.read_text().strip().splitlines() or ["nothing"])[-1]
    raise NotToBeHad(f"Prometheus does not start; the last that it said: {last}")


@contextlib.contextmanager
def running(programs: Programs, target: ScrapeTarget, folder: Path, port: int) -> Iterator[Prometheus]:
    """One that is stopped at the end."""
    found = begin(programs, target, folder, port)
    try:
        yield found
    finally:
        found.stop()


def free_port(wanted: int = 0) -> int:
    """Return a port of 127.0.0.1 on which nobody listens: the wanted one, or any.

    Raises:
        OSError: If the wanted one is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", wanted))
        port: int = probe.getsockname()[1]
        return port
