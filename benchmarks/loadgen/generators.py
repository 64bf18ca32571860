"""Load generators that can be told a constant rate: ours, k6 and wrk."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import msgspec

from benchmarks.harness import wrk
from benchmarks.harness.protocols import PLAIN
from loadtests import result
from loadtests.mlperf.served import Address

WARM_SECONDS = 1
CONNECTIONS = 16
SHARES = ("p50", "p90", "p99")

K6_SCRIPT = """
import http from "k6/http";
const bodies = JSON.parse(open("./bodies.json"));
const many = %(rate)d > 100 ? 64 : 16;
const even = {executor: "constant-arrival-rate", rate: %(rate)d, timeUnit: "1s", preAllocatedVUs: many, maxVUs: 256};
export const options = {
  scenarios: {
    warm: {...even, duration: "%(warm)ds", exec: "ask"},
    counted: {...even, startTime: "%(warm)ds", duration: "%(seconds)ds", exec: "ask", tags: {counted: "yes"}},
  },
  thresholds: {"http_req_duration{counted:yes}": ["max>=0"], "http_req_failed{counted:yes}": ["rate>=0"]},
  summaryTrendStats: ["p(50)", "p(90)", "p(99)", "count"],
};
let at = __VU;
export function ask() {
  at = (at + 1) %% bodies.length;
  http.post("%(url)s", bodies[at], {headers: {"content-type": "application/json"}});
}
export function handleSummary(data) { return {"k6.json": JSON.stringify(data.metrics)}; }
"""

# wrk has no rate. Its connections wait before each request; here they share one schedule, each taking its next slot.
WRK_PACE = """
local ffi = require("ffi")
ffi.cdef("typedef struct { long sec; long nsec; } moment; int clock_gettime(int clock, moment *found);")
local found, due = ffi.new("moment"), nil
function delay()
  ffi.C.clock_gettime(1, found)
  local now = tonumber(found.sec) * 1000 + tonumber(found.nsec) / 1e6
  due = math.max((due or now) + %(gap_ms)f, now)
  return due - now
end
"""


class Percentiles(msgspec.Struct, frozen=True, kw_only=True):
    """Describe what a generator found, milliseconds."""

    p50: float
    p90: float
    p99: float
    answers: int
    failures: int
    due: dict[str, float] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedLoad:
    """Describe what every generator is told."""

    address: Address
    model: str
    bodies: list[bytes]
    rate: float
    seconds: int

    @property
    def url(self) -> str:
        """Of the service."""
        return f"http://{self.address.authority}{self.address.prefix}"


def ask_by_ours(load: GeneratedLoad, folder: Path) -> Percentiles:
    """``python -m loadtests run`` with constant arrivals."""
    out = folder / "ours.json"
    words = [
        "--profile",
        "smoke",
        "--rate",
        str(load.rate),
        "--seconds",
        str(load.seconds),
        "--warm",
        str(WARM_SECONDS),
    ]
    words += ["--arrivals", "constant", "--host", load.url, "--models", load.model, "--out", str(out), "--short"]
    done = subprocess.run([sys.executable, "-m", "loadtests", "run", *words], capture_output=True, text=True)  # noqa: S603  our own
    if not out.is_file():
        raise click.ClickException(done.stderr[-2000:])
    found = result.read(out).whole
    good = found.outcomes.get("ok", 0)
    due = _some(found.latency_ms)
    return Percentiles(**_some(found.sent_ms), answers=found.offered, failures=found.offered - good, due=due)


def ask_by_k6(load: GeneratedLoad, folder: Path) -> Percentiles:
    """k6's ``constant-arrival-rate``."""
    (folder / "bodies.json").write_text(json.dumps([body.decode() for body in load.bodies]))
    values = {"rate": load.rate, "warm": WARM_SECONDS, "seconds": load.seconds}
    (folder / "ask.js").write_text(K6_SCRIPT % {**values, "url": f"{load.url}{PLAIN.path.format(model=load.model)}"})
    command = [shutil.which("k6") or "k6", "run", "--quiet", "--no-usage-report", "ask.js"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)  # noqa: S603  our own
    if done.returncode:
        raise click.ClickException(done.stderr[-2000:])
    metrics = json.loads((folder / "k6.json").read_text())
    found = metrics["http_req_duration{counted:yes}"]["values"]
    failed = metrics["http_req_failed{counted:yes}"]["values"]["passes"]
    return Percentiles(
        p50=found["p(50)"], p90=found["p(90)"], p99=found["p(99)"], answers=found["count"], failures=failed
    )


def ask_by_wrk(load: GeneratedLoad, folder: Path) -> Percentiles:
    """By wrk, with many connections that share a schedule; its own warm-up run comes before."""
    script = folder / "ask.lua"
    wrk.write_script([PLAIN.call(load.model, body) for body in load.bodies], script)
    script.write_text(
        script.read_text()
        .replace('"p99":', '"p90": %d, "p99":')
        .replace("latency:percentile(99)", "latency:percentile(90), latency:percentile(99)")
        + WRK_PACE % {"gap_ms": 1000 / load.rate}
    )
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", "--timeout", "30s", "-s", str(script), load.url]
    for seconds in (WARM_SECONDS, load.seconds):
        done = subprocess.run([*command, f"-d{seconds}s"], capture_output=True, text=True)  # noqa: S603  our own
    line = next((line for line in done.stdout.splitlines() if line.startswith("TALLY ")), None)
    if line is None:
        raise click.ClickException(f"wrk said: {(done.stderr or done.stdout)[:300]}")
    found = json.loads(line.removeprefix("TALLY "))
    return Percentiles(
        p50=found["p50"] / 1000,
        p90=found["p90"] / 1000,
        p99=found["p99"] / 1000,
        answers=found["answers"],
        failures=found["status"] + found["lost"],
    )


OURS = "loadtests"
GENERATORS: dict[str, Callable[[GeneratedLoad, Path], Percentiles]] = {
    OURS: ask_by_ours,
    "k6": ask_by_k6,
    "wrk": ask_by_wrk,
}


def _some(latencies: dict[str, float]) -> dict[str, float]:
    return {share: latencies[share] for share in SHARES}
