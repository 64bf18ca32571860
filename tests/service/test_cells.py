"""Numbers that all processes share are written without the client, and read by it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.multiprocess import MultiProcessCollector

from models.paths import REPOSITORY
from service.telemetry.fast_values import MmapCounters, MmapGauge, MmapHistogram

# What one process writes, through the files and, in a test, without them.
SCRIPT = """
import json, sys
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from service.telemetry.fast_values import MmapCounters, MmapGauge, MmapHistogram

own = CollectorRegistry()
counter = Counter("x_total", "X.", ["model", "outcome"], registry=own)
level = Gauge("x_level", "X.", multiprocess_mode="livesum", registry=own)
spread = Histogram("x_seconds", "X.", ["model"], buckets=(1, 2, 5), registry=own)
tally, cell = MmapCounters(counter, ["ok", "bad"], model="m"), MmapGauge(level)
seconds = MmapHistogram(spread, model="m")
wide = Counter("wide_total", "W" * 500, ["number"], registry=own)
many = [MmapGauge(wide, number=str(number)) for number in range(int(sys.argv[1]))]
for one in many:
    one.add(2)
tally.add("ok"); tally.add("ok", 3); cell.set(7); cell.add(2)
for amount in (0.5, 1, 1.5, 9):
    seconds.add(amount)
seconds.add(2, times=10)
seconds.add_all([3, 4])
late = MmapCounters(counter, ["ok"], model="m")
late.add("ok")
if sys.argv[2] == "stay":
    print("written", flush=True)
    sys.stdin.read()
"""
EXPECTED = {
    'x_total{"model": "m", "outcome": "ok"}': 5.0,
    'x_total{"model": "m", "outcome": "bad"}': 0.0,
    "x_level{}": 9.0,
    'x_seconds_bucket{"le": "1.0", "model": "m"}': 2.0,
    'x_seconds_bucket{"le": "2.0", "model": "m"}': 13.0,
    'x_seconds_bucket{"le": "5.0", "model": "m"}': 15.0,
    'x_seconds_bucket{"le": "+Inf", "model": "m"}': 16.0,
    'x_seconds_count{"model": "m"}': 16.0,
    'x_seconds_sum{"model": "m"}': 39.0,
}


def samples(registry: CollectorRegistry) -> dict[str, float]:
    return {
        f"{sample.name}{json.dumps(sample.labels, sort_keys=True)}": sample.value
        for metric in registry.collect()
        for sample in metric.samples
    }


def write(folder: Path, wide: int = 0) -> None:
    """Let another process write, and end it without warning."""
    environment = {"PYTHONPATH": str(REPOSITORY), "PROMETHEUS_MULTIPROC_DIR": str(folder), "PATH": "/bin"}
    command = [sys.executable, "-c", SCRIPT, str(wide), "stay"]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.kill()


def read(folder: Path) -> dict[str, float]:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))
    return samples(registry)


def test_the_client_reads_what_was_written(tmp_path: Path) -> None:
    """A process that is killed has lost nothing of what it wrote, and the client adds several up."""
    write(tmp_path)
    assert read(tmp_path) == EXPECTED
    write(tmp_path)
    assert read(tmp_path) == {name: 2 * value for name, value in EXPECTED.items()}


def test_a_file_that_grows(tmp_path: Path) -> None:
    """A file that is mapped anew under the hands of those who write goes on taking their numbers."""
    write(tmp_path, wide=400)  # 250 kB, and the file begins with 64
    found = read(tmp_path)
    assert {name: value for name, value in found.items() if not name.startswith("wide")} == EXPECTED
    assert [value for name, value in found.items() if name.startswith("wide")] == [2.0] * 400


def test_alone() -> None:
    """A process that shares no files counts all the same."""
    registry = CollectorRegistry()
    counter = Counter("x_total", "X.", ["model", "outcome"], registry=registry)
    spread = Histogram("x_seconds", "X.", ["model"], buckets=(1, 2), registry=registry)
    level = Gauge("x_level", "X.", registry=registry)
    tally = MmapCounters(counter, ["ok", "bad"], model="m")
    tally.add("ok", 2)
    MmapHistogram(spread, model="m").add_all([0.5, 1.5, 1.5, 3])
    MmapGauge(level).set(4)
    found = samples(registry)
    assert found['x_total{"model": "m", "outcome": "ok"}'] == 2
    assert found['x_seconds_bucket{"le": "2.0", "model": "m"}'] == 3
    assert found['x_seconds_sum{"model": "m"}'] == 6.5
    assert found["x_level{}"] == 4


@pytest.mark.parametrize("key", ["", "OK", "other", None])
def test_no_series_is_made_by_counting(key: Any) -> None:
    """What is not in the closed set is an error, not a new series."""
    counter = Counter("x_total", "X.", ["model", "outcome"], registry=CollectorRegistry())
    with pytest.raises(KeyError):
        MmapCounters(counter, ["ok"], model="m").add(key)
