"""Measure what all metrics cost at 64 connections: ``python -m chaos.service.metrics_overhead``.

Two servers of one core, one of them with every count and measurement of the request's way planted away, are asked in
turn for short slices; each pair of neighbours is one comparison. The server's CPU time for an answer is taken beside
the rate: other work of the machine changes it less.
"""

import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import click
import msgspec
from msgspec import Struct

from benchmarks.harness import machine
from benchmarks.harness.closed_loop import ClosedLoopPlan
from benchmarks.harness.machine import CLIENT_CORES, cpu_seconds, on_cores
from benchmarks.harness.measure import drive
from chaos.service.harness import Harness, Site, workload

CONNECTIONS = 64
BAR = 0.05
OFF = "no_metrics"
WORKLOADS = ("viewcount", "image", "tagging")


class Slice(Struct, frozen=True):
    """Answers per second, and microseconds of the server's CPU time for one."""

    rate: float
    cpu_us: float


class Cost(Struct, frozen=True):
    """Describe what metrics cost one workload: medians over pairs of neighbouring slices.

    Attributes:
        pairs: How many.
        rate_off: Answers per second without metrics.
        batch: Instances in a micro-batch, on average.
        rate: Part of the rate that metrics take.
        cpu: Part by which the server's CPU time of an answer grows.
    """

    workload: str
    pairs: int
    rate_off: float
    cpu_us_off: float
    batch: float
    rate: float
    cpu: float


def ask(site: Site, content: list[bytes], seconds: float) -> Slice:
    """Return one slice.

    Raises:
        OSError: If an answer is not a 200.
    """
    workers, before = site.workers(), cpu_seconds(site.workers())
    with on_cores(set(CLIENT_CORES)):
        (tally,) = drive(ClosedLoopPlan(port=site.port, requests=content, connections=CONNECTIONS, seconds=seconds))
    if tally.errors:
        raise OSError(f"the server answers {tally.statuses}")
    spent = cpu_seconds(workers) - before
    return Slice(tally.answers / tally.seconds, 1e6 * spent / tally.answers)


def compare(ground: Harness, key: str, pairs: int, seconds: float) -> Cost:
    """Both servers in turn, which of them first changing from pair to pair."""
    content, found = workload(key), list[tuple[Slice, Slice]]()
    with ground.serve(key) as on, ground.serve(key, faults=[OFF]) as off:
        for site in (on, off):
            ask(site, content, seconds)
        for number in range(pairs):
            order = (on, off) if number % 2 else (off, on)
            slices = {site.port: ask(site, content, seconds) for site in order}
            found.append((slices[on.port], slices[off.port]))
        count = on.count()
    return Cost(
        key,
        pairs,
        rate_off=median(off.rate for _, off in found),
        cpu_us_off=median(off.cpu_us for _, off in found),
        batch=count.instances / count.batches,
        rate=1 - median(on.rate / off.rate for on, off in found),
        cpu=median(on.cpu_us / off.cpu_us for on, off in found) - 1,
    )


def lines(costs: Iterable[Cost]) -> Iterable[str]:
    """Yield the figures, one line a workload."""
    for one in costs:
        yield (
            f"{one.workload:10} off {one.rate_off:8.0f}/s {one.cpu_us_off:6.1f} µs   metrics take {one.rate:+.1%} of "
            f"the rate, {one.cpu:+.1%} CPU time   ({one.pairs} pairs, batches of {one.batch:.1f})"
        )


@click.command(help=__doc__)
@click.option("--pairs", default=15, show_default=True, help="Comparisons of each workload.")
@click.option("--seconds", default=2.0, show_default=True, help="Of one slice.")
@click.option("--only", default=",".join(WORKLOADS), show_default=True, help="Workloads.")
@click.option("--out", type=click.Path(path_type=Path), help="File for the figures, as JSON.")
def main(pairs: int, seconds: float, only: str, out: Path | None) -> None:
    """The command line."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    machine.adopt_orphans()
    os.sched_setaffinity(0, CLIENT_CORES)
    try:
        with TemporaryDirectory(prefix="lectern-") as folder:
            ground = Harness(folder=Path(folder))
            costs = [compare(ground, key, pairs, seconds) for key in only.split(",")]
    finally:
        machine.end_descendants()
    for line in lines(costs):
        click.echo(line)
    if out is not None:
        out.write_bytes(msgspec.json.format(msgspec.json.encode(costs)) + b"\n")
    if any(one.cpu > BAR for one in costs):
        sys.exit(f"lectern: more than {BAR:.0%}")


if __name__ == "__main__":
    main()
