"""SIGTERM under load: what is under way is finished, newcomers are turned away at once, and then the service ends."""

import signal
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from time import perf_counter, sleep

import psutil

from benchmarks.harness.servers import install_artifacts
from benchmarks.harness.workloads import body
from chaos.service.arithmetic import percentile
from chaos.service.harness import Harness, Site, requests, start_load
from chaos.service.overload import long_sentence
from chaos.service.verdict import ChaosVerdict

TITLE = "SIGTERM"
CONTROL = "workers that end at once, whatever they owe"
RATE, CALM_SECONDS, AFTER_SECONDS = 4.0, 2.0, 2.0
EACH = 10
DEADLINE_SECONDS, GRACE_SECONDS = 1.0, 2.0
REFUSED_SECONDS = 0.1
READYZ = b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


class HealthWatch:
    """A caller that asks ``/readyz`` on a new connection again and again, and notes what it got when."""

    def __init__(self, port: int) -> None:
        self.seen: list[tuple[float, float, str]] = []
        self.is_over = False
        self._port = port
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self.is_over:
            began = perf_counter()
            found = self._ask()
            self.seen.append((began, perf_counter() - began, found))
            sleep(0.01)

    def _ask(self) -> str:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=5) as one:
                one.sendall(READYZ)
                return one.recv(12)[9:].decode() or "closed"
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "hung"
        except OSError:
            return "reset"

    def end(self) -> None:
        """Ask no more."""
        self.is_over = True
        self._thread.join()


def run(ground: Harness, faults: Sequence[str] = ()) -> ChaosVerdict:
    """Return a hundred servers, each told to end while it is asked."""
    verdict, home = ChaosVerdict(trial="sigterm"), Path(mkdtemp(dir=ground.folder))
    install_artifacts(home)
    deadline = str(round(1000 * DEADLINE_SECONDS))
    content = requests("tagging", body(*[long_sentence()] * EACH), x_request_timeout_ms=deadline)
    exits, lost, hung, unready, seen = list[float](), 0, list[float](), list[float](), dict[str, int]()
    for number in range(ground.part(100)):
        ground.say(f"SIGTERM {number + 1}")
        with ground.serve_at(home, "tagging", faults=faults) as site:
            load = start_load(site, content, (RATE, CALM_SECONDS + AFTER_SECONDS), patience_seconds=5)
            watch = HealthWatch(site.port)
            sleep(CALM_SECONDS)
            at = perf_counter()
            exits.append(_end(site))
            report = load.report()
            watch.end()
        lost += sum(intended < at - report.began for intended, _, _ in report.failures)
        later = [(began - at, took, what) for began, took, what in watch.seen if began > at]
        unready.append(next((began for began, _, what in later if what != "200"), float("inf")))
        hung += [took for _, took, what in later]
        for _, _, what in later:
            seen[what] = seen.get(what, 0) + 1
    verdict.at_most("in-flight requests lost", lost, 0)
    verdict.at_most("time until nobody is told that it is ready", max(unready), REFUSED_SECONDS, " s")
    verdict.at_most("a newcomer's wait for its refusal", max(hung), REFUSED_SECONDS, " s")
    verdict.at_most("time until every process is gone", max(exits), DEADLINE_SECONDS + GRACE_SECONDS, " s")
    verdict.measured = {
        "signals": len(exits),
        "newcomers": seen,
        "newcomer_wait_p99_s": round(percentile(hung, 0.99), 3),
        "exit_p50_s": round(percentile(exits, 0.5), 2),
        "exit_most_s": round(max(exits), 2),
        "not_ready_after_most_s": round(max(unready), 3),
    }
    return verdict


def control(ground: Harness) -> ChaosVerdict:
    """Return the same with a fault."""
    return run(Harness(folder=ground.folder, share=0.01, say=ground.say), ["abrupt"])


def _end(site: Site) -> float:
    """Seconds from SIGTERM until no process is left."""
    processes, at = site.server.tree(), perf_counter()
    site.server.process.send_signal(signal.SIGTERM)
    site.server.process.wait(60)
    psutil.wait_procs(processes, timeout=30)
    return perf_counter() - at
