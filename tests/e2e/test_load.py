"""The load test against services whose every figure is known, and against the real one. Locust runs in processes."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec
import numpy as np
import psutil
import pytest

from loadtests import result
from loadtests.limit import stub
from loadtests.plan import Arrivals, schedule
from loadtests.profiles import phases
from loadtests.result import LoadResult
from loadtests.start import LOCUSTFILE
from models.paths import REPOSITORY

STALL_MS, EVERY_SECONDS = 500.0, 2.5
# Of the requests that are due evenly over time, one of a hundred waits longer than this.
TRUE_P99_MS = STALL_MS - 0.01 * EVERY_SECONDS * 1000
PATIENT = ("--p99-ms", "1000")


class Done(NamedTuple):
    """Describe how a load test ended."""

    code: int
    said: str
    page: Path
    found: LoadResult


Load = Callable[..., Done]


@pytest.fixture(scope="module")
def load(run: Callable[..., "subprocess.CompletedProcess[str]"], tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Runs ``python -m loadtests …`` against an address."""

    def run_one(host: str, *arguments: str) -> Done:
        folder = tmp_path_factory.mktemp("load")
        out = folder / "found.json"
        words = ["-m", "loadtests", *arguments, "--host", host, "--out", str(out)]
        done = run(*words, home=folder, timeout=110)
        assert out.exists(), done.stderr
        return Done(done.returncode, done.stdout, out.with_suffix(".html"), result.read(out))

    return run_one


@pytest.fixture(scope="module")
def planted(load: Load) -> Iterator[dict[str, Future[Done]]]:
    """Load tests of stubs, side by side, because they mostly wait."""

    def against(options: str, *arguments: str) -> Done:
        with stub(*options.split()) as host:
            return load(host, *arguments)

    stall = f"--stall-ms {STALL_MS} --every {EVERY_SECONDS} --wait-ms 5"
    two_stalls = ("--seconds", "5", "--warm", "0.5", *PATIENT)
    search = ("capacity", "--model", "viewcount", "--short")
    bucket = ("--start", "420", "--window", "1", "--closeness", "1.05", "--arrivals", "constant")
    with ThreadPoolExecutor() as pool:
        yield {
            "open": pool.submit(against, stall, "run", "--rate", "200", *two_stalls),
            "closed": pool.submit(against, stall, "run", "--profile", "closed", "--users", "4", *two_stalls),
            "wrong": pool.submit(against, "--wrong 0.01", "run", "--rate", "400", *two_stalls),
            "bucket": pool.submit(
                against, "--bucket 800 --depth 20", *search, *bucket, "--error-share", "0.01", *PATIENT
            ),
        }


@pytest.mark.slow
def test_a_planted_stall_is_seen_in_full_by_an_open_loop(planted: dict[str, Future[Done]]) -> None:
    done = planted["open"].result()
    assert done.found.whole.latency_ms["p99"] == pytest.approx(TRUE_P99_MS, rel=0.1), done.said
    assert done.code == 0
    assert done.page.exists()


@pytest.mark.slow
def test_a_closed_loop_hides_the_same_stall(planted: dict[str, Future[Done]]) -> None:
    found = planted["closed"].result().found
    assert found.whole.offered > 500
    assert found.whole.latency_ms["p99"] < TRUE_P99_MS / 2
    assert found.whole.latency_ms["max"] > 0.8 * STALL_MS


@pytest.mark.slow
def test_wrong_answers_are_counted_and_fail_the_run(planted: dict[str, Future[Done]]) -> None:
    done = planted["wrong"].result()
    offered = sum(part.offered for part in done.found.parts)
    all_wrong = sum(part.outcomes.get("wrong answer", 0) for part in done.found.parts)
    wrong = done.found.whole.outcomes["wrong answer"]
    expected = 0.01 * done.found.whole.offered
    assert abs(wrong - expected) < 4 * expected**0.5
    assert done.code == 1
    assert f"{all_wrong} of {offered:,} answers: wrong answer" in done.said


@pytest.mark.slow
def test_the_capacity_of_a_token_bucket_is_found(planted: dict[str, Future[Done]]) -> None:
    done = planted["bucket"].result()
    finding = done.found.finding
    assert finding is not None
    assert finding.rate == pytest.approx(800, rel=0.05), (done.said, done.found.windows)
    assert "503 overloaded" in finding.knee
    assert finding.limit


@pytest.mark.e2e
def test_nothing_is_reported_where_the_generator_was_what_limited(load: Load) -> None:
    with stub() as host:
        done = load(host, "capacity", "--model", "viewcount", "--short", "--start", "20000", "--window", "0.3")
    assert done.code == 4
    assert "the client was the bottleneck" in done.said
    assert done.found.finding is not None
    assert done.found.finding.rate is None


@pytest.mark.slow
def test_a_worker_that_was_started_elsewhere_needs_only_the_masters_address(load: Load, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    worker = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--worker", "--master-port", port]
    with stub() as host, subprocess.Popen(worker, cwd=REPOSITORY, stderr=subprocess.DEVNULL) as process:
        done = load(
            host, "run", "--rate", "50", "--seconds", "2", "--expect-workers", "1", "--bind-port", port, "--short"
        )
        assert process.wait(30) == 0
    assert done.code == 0, done.said
    assert done.found.whole.outcomes == {"ok": done.found.whole.offered}


@pytest.mark.e2e
def test_two_processes_share_the_load_of_every_served_model(load: Load, server: "object") -> None:
    host = f"http://127.0.0.1:{server.port}"  # type: ignore[attr-defined]
    shape = ("--profile", "mixed", "--rate", "40", "--seconds", "4", "--warm", "1", "--p99-ms", "5000")
    done = load(host, "run", *shape, "--processes", "2", "--short")
    found = done.found
    assert done.code == 0, done.said
    assert found.workers == 2
    assert {family for *_, family in found.models} == {"viewcount", "tagging", "image", "graph"}
    due = schedule(phases("mixed", 40, 4, 1), Arrivals.POISSON, seed=7)
    assert found.whole.offered == np.sum(due >= 1)
    assert found.whole.outcomes == {"ok": found.whole.offered}
    assert min(part.offered for part in found.by_model) > 0
    counted = {metric.labels["model"] for metric in found.metrics if metric.name == "lectern_request_seconds"}
    assert counted == {name for name, *_ in found.models}
    assert found.used.server_cores is not None
    assert found.used.server_cores > 0
    assert not [child for child in psutil.Process().children() if "locust" in " ".join(child.cmdline())]


LOCUST = [sys.executable, "-m", "locust", "--headless", "--only-summary"]


@pytest.mark.e2e
def test_plain_locust_has_users_of_families_that_wait(tmp_path: Path) -> None:
    """A user asks about once in a second, an address is read as people type it, and the run ends when it is over."""
    out = tmp_path / "stats"
    with stub() as host:
        words = [
            "-f",
            str(LOCUSTFILE),
            "--host",
            f"{host.removeprefix('http://')}/",
            "-u",
            "4",
            "-r",
            "4",
            "-t",
            "4s",
            "--json-file",
            str(out),
        ]
        done = subprocess.run([*LOCUST, *words], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    (found,) = msgspec.json.decode(out.with_suffix(".json").read_bytes())
    assert found["name"] == "/v1/models/viewcount/predict"  # there is no other in the stub: its user is the only one
    assert 2 <= found["num_requests"] <= 8
    assert found["num_failures"] == 0


@pytest.mark.e2e
def test_plain_locust_runs_as_long_as_asked_however_slowly_it_starts(tmp_path: Path) -> None:
    """What a first import takes, of a new installation on a busy machine, is not taken off ``-t``."""
    slow, out = tmp_path / "slow.py", tmp_path / "stats"
    slow.write_text(
        "from time import monotonic\nend = monotonic() + 5\nwhile monotonic() < end: pass\n"
        "from loadtests.locustfile import *\n"
    )
    with stub() as host:
        words = ["-f", str(slow), "--host", host, "-u", "4", "-r", "4", "-t", "4s", "--json-file", str(out)]
        done = subprocess.run([*LOCUST, *words], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    (found,) = msgspec.json.decode(out.with_suffix(".json").read_bytes())
    assert found["num_requests"] >= 2


@pytest.mark.e2e
def test_plain_locust_says_in_a_line_that_nobody_answers() -> None:
    done = subprocess.run(
        [*LOCUST, "-f", str(LOCUSTFILE), "--host", "127.0.0.1:9", "-t", "9s"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 3
    (line,) = [line for line in done.stderr.splitlines() if "ERROR" in line]
    assert line.endswith("127.0.0.1:9 does not answer (Connection refused); does the service run there?")


@pytest.mark.e2e
@pytest.mark.parametrize("profile", ["smoke", "closed"])
def test_an_interrupted_run_reports_what_it_measured(profile: str, tmp_path: Path) -> None:
    """Ctrl-C reaches the whole process group; the report is of the time until then, and nothing is left behind."""
    out = tmp_path / "found.json"
    with stub() as host:
        words = ["run", "--profile", profile, "--seconds", "60", "--warm", "0.5", "--rate", "50", "--short"]
        process = subprocess.Popen(
            [sys.executable, "-m", "loadtests", *words, "--host", host, "--out", str(out)],
            cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            preexec_fn=hear_interrupts,
        )  # fmt: skip
        before = requests_of(host)
        while requests_of(host) < before + 400:  # the references, the warm-up and more
            time.sleep(0.1)
        generators = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        said, complaint = process.communicate(timeout=30)
    assert process.returncode == 130, (said, complaint)
    assert said.startswith("Interrupted: ")
    found = result.read(out)
    assert found.is_interrupted
    assert 0 < found.whole.seconds < 50
    assert found.whole.outcomes == {"ok": found.whole.offered}
    assert not psutil.wait_procs(generators, timeout=10)[1]


def hear_interrupts() -> None:
    """Undo what a shell does to what it runs in the background: Ctrl-C would be ignored for good."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def requests_of(host: str) -> int:
    """Return how many predictions a stub has answered."""
    return int(httpx.get(f"{host}/metrics").text.split()[-1])
