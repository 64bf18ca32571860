"""Measure the load generator itself: rising rates against a stub that answers at once."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import click
import msgspec

from loadtests import result
from loadtests.plan import LoadPhase
from loadtests.start import locust
from loadtests.targets import Ask
from loadtests.task import LoadTask, Objective, Patience
from loadtests.verdict import Exit
from models.paths import REPOSITORY

STEP = 1000.0
OBJECTIVE = Objective(p99_ms=100.0, error_share=0.001)


class GeneratorLimit(NamedTuple):
    """Describe what one generator process can do.

    Attributes:
        on_time_rate: The highest rate at which it was on time, requests per second.
        cpu_us: Of its CPU for a request, in microseconds.
        sentence: Both, for people.
    """

    on_time_rate: float
    cpu_us: float
    sentence: str


@contextmanager
def stub(*options: str) -> Iterator[str]:
    """The address of a stub with something planted, until the end of the block."""
    command = [sys.executable, "-m", "loadtests.stub", *options]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603  our own
        try:
            assert process.stdout is not None  # it is a pipe
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


def own_limit(seconds: float, most: float) -> GeneratorLimit:
    """Offer 1,000 requests a second, 2,000, and so on.

    Raises:
        OSError: If nothing could be measured.
        click.Abort: If it was interrupted.
    """
    rates = [STEP * number for number in range(1, int(most / STEP) + 1)]
    phases = [LoadPhase(name="warm-up", seconds=1, rate=STEP, is_counted=False)]
    phases += [LoadPhase(name=f"{rate:,.0f}/s", seconds=seconds, rate=rate) for rate in rates]
    with TemporaryDirectory(prefix="lectern-") as folder, stub() as host:
        task, out = Path(folder) / "task.json", Path(folder) / "out.json"
        plan = LoadTask(profile="limit", ask=Ask(host=host), objective=OBJECTIVE, phases=phases, out=str(out))
        task.write_bytes(msgspec.json.encode(plan))
        if (code := locust(task, host, processes=1)) not in (0, Exit.INTERRUPTED):
            raise OSError("the load generator did not come to its end")
        found = None if code else result.read(out)
    if found is None or found.is_interrupted:
        raise click.Abort
    bearable = Patience().lag_ms(OBJECTIVE)
    on_time = [
        rate
        for rate, part in zip(rates, found.parts[1:], strict=True)
        if part.lag_p99_ms <= bearable and part.failed_share == 0
    ]
    cpu_us = 1e6 * found.used.client_share / max(1.0, found.whole.offered_rate)
    highest = max(on_time, default=0.0)
    lags = ", ".join(f"{part.name}: {part.lag_p99_ms:.1f} ms" for part in found.parts[1:])
    return GeneratorLimit(
        highest,
        cpu_us,
        f"One generator process is on time up to {highest:,.0f} requests/s (one request of a hundred left so late: "
        f"{lags}; {bearable:.0f} ms are bearable). A request costs it {cpu_us:.0f} µs of CPU, checks included, so a "
        f"core of its own is full at {1e6 / cpu_us:,.0f} requests/s.",
    )
