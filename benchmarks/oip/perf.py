"""Triton's ``perf_analyzer`` against a running server: ``python -m benchmarks.oip perf``.

The tool is a program inside an old wheel of ``tritonclient``, built against CUDA's runtime, which another has, and
Debian's ``libb64-0d``. Both wheels are unpacked below ``runs/peers`` and installed nowhere.
"""

import csv
import json
import os
import re
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from benchmarks.harness.environments import ROOT, Unavailable
from benchmarks.harness.machine import commit, describe
from models.paths import REPOSITORY

PLACE = REPOSITORY / "benchmarks" / "results" / "oip_perf_analyzer.json"
FOLDER = ROOT / "perf_analyzer"
WHEELS = ("tritonclient==2.50.0", "nvidia-cuda-runtime-cu12==12.9.79")
PROGRAM = "tritonclient-2.50.0.data/data/bin/perf_analyzer"
RUNTIME = "nvidia/cuda_runtime/lib"
# What each model is asked: noise is a picture; zeros are views; a text has to be given.
MODELS = {
    "viewcount": ("-z",),
    "image": (),
    "tagging": ("--shape", "text:1", "--string-data", "I saw a saw in the old harbour town"),
}
CONCURRENCIES = (1, 2, 4, 8, 16, 32, 64)
RATE = 200
WINDOW_REQUESTS = 500
# On a machine that others use, latencies of three windows in a row are seldom within its default, a tenth.
STABILITY_PERCENT = 60
TRIALS = 20
TIMEOUT_SECONDS = 300


class PerfResult(NamedTuple):
    """One run.

    Attributes:
        model: Who was asked.
        load: How.
        inferences_per_second: By the tool.
        p50_us: By the tool.
        p99_us: By the tool.
        failures: Requests that the server counted as failed meanwhile.
    """

    model: str
    load: str
    inferences_per_second: float
    p50_us: float
    p99_us: float
    failures: int


def install() -> Path:
    """Return the tool, unpacked from its wheel unless it is there.

    Raises:
        Unavailable: If a wheel cannot be had.
    """
    program = FOLDER / PROGRAM
    if program.exists() and (FOLDER / RUNTIME).is_dir():
        return program
    with TemporaryDirectory() as wheels:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", wheels, *WHEELS]
        done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603  our own
        if done.returncode:
            raise Unavailable(f"the wheels cannot be had: {done.stderr.strip().splitlines()[-1:]}")
        for wheel in Path(wheels).glob("*.whl"):
            with zipfile.ZipFile(wheel) as opened:
                opened.extractall(FOLDER)
    program.chmod(0o755)
    return program


def loads() -> Iterator[tuple[str, tuple[str, ...]]]:
    """The kinds of load, by name, as the tool takes them."""
    for concurrency in CONCURRENCIES:
        yield f"concurrency {concurrency}", ("--concurrency-range", str(concurrency))
    poisson = ("--request-rate-range", str(RATE), "--request-distribution", "poisson")
    yield f"Poisson, {RATE} a second", poisson


def run(program: Path, address: str, model: str, load: str, arguments: tuple[str, ...]) -> PerfResult:
    """Return one run of the tool.

    Raises:
        RuntimeError: If it comes to no result.
    """
    before = _failures(address, model)
    with TemporaryDirectory() as folder:
        table = Path(folder) / "found.csv"
        command = [
            str(program), "-u", address, "-m", model, "-f", str(table), "--measurement-mode", "count_windows",
            "--measurement-request-count", str(WINDOW_REQUESTS), "-s", str(STABILITY_PERCENT), "-r", str(TRIALS),
            *MODELS[model], *arguments,
        ]  # fmt: skip
        environment = {**os.environ, "LD_LIBRARY_PATH": str(FOLDER / RUNTIME)}
        done = subprocess.run(  # noqa: S603  its own program
            command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS
        )
        if done.returncode or not table.exists():
            raise RuntimeError(f"{model}, {load}: {(done.stdout + done.stderr).strip()[-500:]}")
        (row,) = csv.DictReader(table.open())
    return PerfResult(
        model=model,
        load=load,
        inferences_per_second=float(row["Inferences/Second"]),
        p50_us=float(row["p50 latency"]),
        p99_us=float(row["p99 latency"]),
        failures=_failures(address, model) - before,
    )


def _failures(address: str, model: str) -> int:
    with urllib.request.urlopen(f"http://{address}/v2/models/{model}/stats") as answer:
        (stats,) = json.load(answer)["model_stats"]
    failures: int = stats["inference_stats"]["fail"]["count"]
    return failures


def address_of(url: str) -> str:
    """Host and port of a URL."""
    return re.sub(r"^https?://|/$", "", url)


def write(results: list[PerfResult]) -> None:
    """Keep the results, with the machine and the commit they are of."""
    told: dict[str, Any] = {"commit": commit(), "machine": describe(), "wheels": WHEELS}
    told["results"] = [result._asdict() for result in results]
    PLACE.write_text(json.dumps(told, indent=1) + "\n")
