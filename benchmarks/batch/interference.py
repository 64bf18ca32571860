"""Measure how much slower predictions are beside a running job: ``python -m benchmarks.batch.interference``.

One gateway worker, and an open-loop client that asks for view counts at a fixed rate, beside a tagging job that is
stopped and continued every other second (SIGSTOP, SIGCONT), so that whatever else the machine does falls on both sides
alike. A request's time counts from when it was due: who waits behind a slow answer is slow too. The client never waits
for a core, for callers are on other machines. The controls are the same scorer started by hand, in another session.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import median, quantiles

import click
import httpx

from benchmarks.harness.machine import end, tree
from models.paths import REPOSITORY

HOST = "127.0.0.1"
ROWS = 500_000
WORDS = ("I", "saw", "a", "saw", "in", "the", "old", "house", "that", "fell")
BODY = json.dumps({"instances": [{"views": [100 + day % 7 for day in range(56)]}]}).encode()
HEAD = b"POST /v1/models/viewcount/predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
REQUEST = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
Rounds = list[list[float]]
Begin = Callable[[], tuple[int, Callable[[], None]]]


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(root: Path, home: Path, workers: int) -> Iterator[tuple[int, httpx.Client]]:
    """A server with one gateway worker, whose jobs have so many processes."""
    port = free_port()
    mine = {"LECTERN_PORT": str(port), "LECTERN_JOBS_ROOT": str(root), "LECTERN_JOBS_WORKERS": str(workers)}
    fixed = {"LECTERN_DEVICE": "cpu", "LECTERN_MODELS": "viewcount,tagging", "BENTOML_HOME": str(home)}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LECTERN_")} | mine | fixed
    with (home / "server.log").open("ab") as log:
        command = [sys.executable, "-m", "service"]
        process = subprocess.Popen(  # noqa: S603  every word of it is ours
            command, env=environment, cwd=REPOSITORY, stdout=log, stderr=log, start_new_session=True
        )
    found = tree(process.pid)
    try:
        with httpx.Client(base_url=f"http://{HOST}:{port}", timeout=30, trust_env=False) as client:
            until = time.monotonic() + 60
            while not is_ready(client):
                if time.monotonic() > until:
                    raise click.ClickException((home / "server.log").read_text()[-2000:])
                time.sleep(0.1)
            yield process.pid, client
    finally:
        found = tree(process.pid)
        process.send_signal(signal.SIGTERM)
        end(found, patience=20)


def is_ready(client: httpx.Client) -> bool:
    """Return whether the server answers."""
    with suppress(httpx.HTTPError):
        return client.get("/readyz").status_code == 200
    return False


def ask(port: int, rate: float, seconds: float) -> list[float]:
    """Milliseconds from when each answer was due; every one of them is a 200."""
    connections = [socket.create_connection((HOST, port)) for _ in range(4)]
    taken, started = [], time.perf_counter()
    for number in range(int(rate * seconds)):
        due = started + number / rate
        time.sleep(max(0.0, due - time.perf_counter()))
        connection = connections[number % len(connections)]
        connection.sendall(REQUEST)
        if connection.recv(65536)[9:12] != b"200":
            raise click.ClickException("a prediction was refused")
        taken.append(1000 * (time.perf_counter() - due))
    for connection in connections:
        connection.close()
    return taken


@contextmanager
def undisturbed() -> Iterator[None]:
    """This process as if it were on another machine: whatever runs here, it has a core at once (as root only)."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except PermissionError:
        click.echo("not root: the client itself has to wait for a core, and that is measured too", err=True)
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def job(leader: int, client: httpx.Client) -> tuple[int, Callable[[], None]]:
    """Start a job and wait until it scores; its process group, and how to end it."""
    answer = client.post("/v1/jobs", json={"model": "tagging", "input": "rows.jsonl", "options": {"part_rows": 500}})
    job_url = answer.raise_for_status().headers["location"]
    while not client.get(job_url).json()["rows"]:
        time.sleep(0.1)
    (group,) = {os.getpgid(one.pid) for one in tree(leader) if "service.scoring" in one.cmdline()}

    def stop() -> None:
        told = client.delete(job_url).json()
        click.echo(f"    the job had scored {told['rows']} rows", err=True)

    return group, stop


def by_hand(root: Path, home: Path, workers: int) -> tuple[int, Callable[[], None]]:
    """Start the scorer as it is, which gives way to nobody; its process group, and how to end it."""
    target = home / "control" / f"{time.monotonic_ns()}.jsonl"
    target.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "service.scoring", "run", "tagging", str(root / "rows.jsonl"), str(target)]
    environment = {**os.environ, "BENTOML_HOME": str(home), "LECTERN_DEVICE": "cpu"}
    options = ["--workers", str(workers), "--part-rows", "500", "--quiet"]
    process = subprocess.Popen(  # noqa: S603  every word of it is ours
        command + options, env=environment, cwd=REPOSITORY, start_new_session=True
    )
    time.sleep(8)

    def stop() -> None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    return process.pid, stop


def compare(port: int, begin: Begin, rate: float, seconds: float, rounds: int) -> tuple[Rounds, Rounds]:
    """Milliseconds of the answers of each round, without and with what ``begin`` starts, in turn who goes first."""
    found: dict[bool, Rounds] = {False: [], True: []}
    group, stop = begin()
    for number in range(rounds):
        for is_beside in (number % 2 == 1, number % 2 == 0):
            os.killpg(group, signal.SIGCONT if is_beside else signal.SIGSTOP)
            time.sleep(0.05)
            found[is_beside].append(ask(port, rate, seconds))
    os.killpg(group, signal.SIGCONT)
    stop()
    return found[False], found[True]


def told(without: Rounds, beside: Rounds, percent: int) -> str:
    """Return a percentile of all answers, and the median of the rounds' own, which a busy neighbour moves less."""

    def cut(taken: list[float]) -> float:
        return quantiles(taken, n=100)[percent - 1]

    here, there = cut([*chain(*without)]), cut([*chain(*beside)])
    typical = median(map(cut, without)), median(map(cut, beside))
    return (
        f"p{percent} of all {here:.2f} -> {there:.2f} ms ({there / here:.2f}), "
        f"of a round {typical[0]:.2f} -> {typical[1]:.2f} ms ({typical[1] / typical[0]:.2f})"
    )


def write_rows(root: Path) -> None:
    """Sentences for a job that does not end before it is told to."""
    with (root / "rows.jsonl").open("w") as file:
        for number in range(ROWS):
            tokens = [WORDS[(number * 7 + job_url * job_url) % len(WORDS)] for job_url in range(3 + number % 60)]
            file.write(json.dumps({"tokens": tokens}) + "\n")


@click.command(help=__doc__)
@click.option("--rate", default=200.0, show_default=True, help="Requests per second.")
@click.option("--seconds", default=1.0, show_default=True, help="Of one measurement.")
@click.option("--rounds", default=60, show_default=True, help="Measurements with, and as many without.")
@click.option("--controls/--no-controls", default=True, help="Also beside a scorer that gives way to nobody.")
def main(rate: float, seconds: float, rounds: int, *, controls: bool) -> None:
    """Print percentiles and their ratios for each way."""
    with tempfile.TemporaryDirectory() as folder:
        root, home = Path(folder) / "root", Path(folder) / "home"
        root.mkdir()
        home.mkdir()
        write_rows(root)
        environment = {**os.environ, "BENTOML_HOME": str(home)}
        subprocess.run(
            [sys.executable, "-m", "export", "install"], env=environment, cwd=REPOSITORY, check=True, stdout=2
        )
        for workers in (1, 2):
            with serving(root, home, workers) as (leader, client):
                ways: dict[str, Begin] = {f"a job of {workers}": partial(job, leader, client)}
                if controls:
                    ways[f"a scorer by hand of {workers}"] = partial(by_hand, root, home, workers)
                for name, begin in ways.items():
                    with undisturbed():
                        without, beside = compare(client.base_url.port or 0, begin, rate, seconds, rounds)
                    lines = [told(without, beside, percent) for percent in (50, 90, 99)]
                    click.echo(f"{name}, {len(beside)} rounds each, without -> with: {'; '.join(lines)}")


if __name__ == "__main__":
    main()
