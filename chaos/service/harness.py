"""Start real servers on the first core, with or without planted faults, and their load."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from time import sleep
from urllib.parse import urlsplit

import msgspec
import psutil

from benchmarks.harness.closed_loop import ClosedLoopPlan as ClosedPlan
from benchmarks.harness.machine import CLIENT_CORES, on_cores
from benchmarks.harness.measure import drive
from benchmarks.harness.peers import Peer
from benchmarks.harness.protocols import JSON, PLAIN, Envelope
from benchmarks.harness.servers import Server, install_artifacts, serving
from benchmarks.harness.workloads import examples, make
from chaos.service.counters import Count, differences, scrape
from chaos.service.records import ChaosPhase, ChaosReport, LoadPlan
from chaos.service.verdict import ChaosVerdict
from models.paths import REPOSITORY

PLANTED = Path(__file__).parent / "planted"
FAULTS = "TORTURE_FAULTS"
SETTLE_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A running server, and how it is asked.

    Attributes:
        port: On this machine.
        home: Its folder; BentoML's is below.
        running: The server, unless somebody else started it.
    """

    port: int
    home: Path
    running: Server | None = None

    @property
    def server(self) -> Server:
        """Return the server, which must be ours."""
        if self.running is None:
            raise ValueError("somebody else's server can only be asked")
        return self.running

    def workers(self) -> list[psutil.Process]:
        """Return the processes that answer; the leader only looks after them."""
        return [one for one in self.server.tree()[1:] if "_bentoml_impl.worker.service" in " ".join(_command(one))]

    def count(self) -> Count:
        """Return the server's counters, once it has had time to flush them."""
        sleep(SETTLE_SECONDS)
        return scrape(self.port)

    def log(self) -> str:
        """Return what it said."""
        return (self.home / f"{self.server.peer.key}.log").read_text(errors="replace")


def _command(process: psutil.Process) -> list[str]:
    try:
        found: list[str] = process.cmdline()
        return found
    except psutil.Error:
        return []


@dataclass(slots=True, kw_only=True)
class Harness:
    """Makes servers and load for the trials.

    Attributes:
        folder: For their files.
        share: How much of a trial's full size is run, 0 to 1.
        say: Tells who waits how far it is.
        url: Of a running server to ask instead of starting any.
    """

    folder: Path
    share: float = 1.0
    say: Callable[[str], None] = print
    url: str = ""
    _examples: dict[str, bytes] = field(default_factory=dict)

    def part(self, full: int, least: int = 1) -> int:
        """That many of a full trial's."""
        return max(least, round(full * self.share))

    def seconds(self, full: float, least: float = 3.0) -> float:
        """That long of a full trial's."""
        return max(least, full * self.share)

    @contextmanager
    def serve(self, *models: str, faults: Sequence[str] = (), **settings: str) -> Iterator[Site]:
        """A server of these models, ready, until the end of the block.

        Args:
            models: Served.
            faults: Planted, by their names in ``chaos.service.faults``.
            settings: Environment variables.
        """
        home = Path(mkdtemp(dir=self.folder))
        if self.url:
            yield Site(port=urlsplit(self.url).port or 80, home=home)
            return
        install_artifacts(home)
        with self.serve_at(home, *models, faults=faults, **settings) as site:
            yield site

    @contextmanager
    def serve_at(
        self,
        home: Path,
        *models: str,
        faults: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        **settings: str,
    ) -> Iterator[Site]:
        """The same in a folder that has its artifacts; it is ready when it answers requests with these headers."""
        planted = {"PYTHONPATH": os.pathsep.join([str(PLANTED), str(REPOSITORY)]), FAULTS: ",".join(faults)}
        peer = Peer(
            key="lectern",
            title="Lectern",
            arguments=(),
            settings={**(planted if faults else {}), **settings},
            envelope=Envelope(headers=dict(headers or {})),
        )
        with serving(peer, Path(sys.executable), home, self.examples(*models)) as server:
            yield Site(port=server.port, home=home, running=server)

    def examples(self, *models: str) -> Mapping[str, bytes]:
        """Return one valid body per model."""
        self._examples = self._examples or examples()
        return {model: self._examples[model] for model in models}


def requests(model: str, body: bytes | Sequence[bytes], media_type: str = JSON, **headers: str) -> list[bytes]:
    """Whole requests with these bodies; underscores in header names are dashes."""
    bodies = [body] if isinstance(body, bytes) else body
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    calls = [PLAIN.call(model, one, media_type) for one in bodies]
    return [one_request(call.path, {**call.headers, **more}, call.body) for call in calls]


def one_request(path: str, headers: Mapping[str, str], body: bytes, method: str = "POST") -> bytes:
    """Return a whole request."""
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", f"content-length: {len(body)}"]
    return "\r\n".join([*lines, *(f"{k}: {v}" for k, v in headers.items()), "", ""]).encode() + body


def workload(key: str, **headers: str) -> list[bytes]:
    """Return the requests of one of the benchmark's workloads."""
    work = make([key])[0]
    return requests(work.model, work.bodies, work.media_type, **headers)


class BackgroundLoad:
    """Open-loop load in a process of its own, on the client's core."""

    def __init__(self, plan: LoadPlan) -> None:
        with on_cores(set(CLIENT_CORES)):
            self.process = subprocess.Popen(
                [sys.executable, "-m", "chaos.service.open_loop"],
                cwd=REPOSITORY,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.msgpack.encode(plan))
        self.process.stdin.close()
        self.process.stdin = None

    def report(self) -> ChaosReport:
        """Return what became of it; waits for its end.

        Raises:
            OSError: If the client failed.
        """
        out, _ = self.process.communicate()
        if self.process.returncode:
            raise OSError(f"the client ended with status {self.process.returncode}")
        return msgspec.json.decode(out, type=ChaosReport)


def offer(site: Site, content: Sequence[bytes], *phases: tuple[float, float], **options: float) -> ChaosReport:
    """Load of phases ``(rate, seconds)``, to its end."""
    return start_load(site, content, *phases, **options).report()


def start_load(site: Site, content: Sequence[bytes], *phases: tuple[float, float], **options: float) -> BackgroundLoad:
    """Return the same, under way."""
    made = [ChaosPhase(rate=rate, seconds=seconds) for rate, seconds in phases]
    return BackgroundLoad(
        msgspec.convert({"port": site.port, "requests": list(content), "phases": made, **options}, LoadPlan)
    )


def peak(site: Site, content: Sequence[bytes], seconds: float, connections: int = 64) -> float:
    """Answers per second that the server reaches when each of some connections waits for its answer.

    Raises:
        OSError: If more than one answer of a hundred is not a 200.
    """
    plan = ClosedPlan(port=site.port, requests=list(content), connections=connections, seconds=seconds, repeats=2)
    with on_cores(set(CLIENT_CORES)):
        tally = drive(plan)[1]
    if tally.errors > 0.01 * tally.answers:
        raise OSError(f"at its peak the server answers {tally.statuses}")
    return tally.answers / tally.seconds


def reconcile(verdict: ChaosVerdict, client: Mapping[str, int], before: Count, after: Count) -> None:
    """The bar that each request ended in exactly one counted outcome."""
    found = differences(client, after.since(before))
    verdict.expect("the server's counters equal the client's statuses", "; ".join(found) or "equal", not found)
