"""wrk as load client: a script with the requests in, a tally out.

wrk corrects its latencies for coordinated omission: it adds the samples that a slow answer kept from being taken. A
single slow answer therefore weighs more in its p99 than in the Python client's.
"""

import json
import resource
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness.closed_loop import ClosedLoopCounts
from benchmarks.harness.protocols import ProtocolCall

_SCRIPT = """
local bodies = {%(bodies)s}
wrk.method, wrk.path = "POST", %(path)s
%(headers)s
if #bodies == 1 then
  wrk.body = bodies[1]
else
  local requests, at = {}, 0
  function init(args)
    for i, body in ipairs(bodies) do requests[i] = wrk.format(nil, nil, nil, body) end
  end
  function request()
    at = at %% #requests + 1
    return requests[at]
  end
end
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\\nTALLY {"answers": %%d, "micros": %%d, "p50": %%d, "p99": %%d, "status": %%d, "lost": %%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
end
"""


def is_here() -> bool:
    """Return whether wrk can be run."""
    return shutil.which("wrk") is not None


def write_script(calls: Sequence[ProtocolCall], path: Path) -> None:
    """Write the Lua that sends calls in turn; they may differ in their bodies only."""
    headers = [f"wrk.headers[{_quote(name)}] = {_quote(value)}" for name, value in calls[0].headers.items()]
    path.write_text(
        _SCRIPT
        % {
            "bodies": ", ".join(_quote(call.body) for call in calls),
            "path": _quote(calls[0].path),
            "headers": "\n".join(headers),
        }
    )


def run(script: Path, port: int, connections: int, seconds: int) -> ClosedLoopCounts:
    """Return one run of wrk, with one thread.

    Raises:
        OSError: If it fails.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([*command, f"http://127.0.0.1:{port}"], capture_output=True, text=True)  # noqa: S603  our own
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    line = next((line for line in done.stdout.splitlines() if line.startswith("TALLY ")), None)
    if line is None:
        raise OSError(f"wrk said: {(done.stderr or done.stdout)[:300]}")
    found = json.loads(line.removeprefix("TALLY "))
    good = found["answers"] - found["status"]
    return ClosedLoopCounts(
        answers=found["answers"],
        seconds=found["micros"] / 1e6,
        p50_ms=found["p50"] / 1000,
        p99_ms=found["p99"] / 1000,
        statuses={"200": good, "other": found["status"], "closed": found["lost"]},
        cpu_seconds=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    )


def _quote(value: str | bytes) -> str:
    """Return a Lua string of any bytes."""
    content = value.encode() if isinstance(value, str) else value
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03d}" for byte in content)
    return f'"{"".join(plain)}"'
