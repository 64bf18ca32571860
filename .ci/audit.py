"""Ask the public advisory database about every package of a lock: ``python .ci/audit.py LOCK``.

A known defect fails. Where the database cannot be asked, a line says so and nothing fails: no answer is not a pass.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

COMMAND = ("-m", "pip_audit", "--disable-pip", "--require-hashes", "--progress-spinner", "off", "--format", "json")
# How requests and pip-audit name a network that is not there; any other failure is a failure.
UNREACHABLE = ("ConnectionError", "ServiceError", "ProxyError", "SSLError", "Timeout", "HTTPError", "NameResolution")


def verdict(dependencies: Sequence[Mapping[str, Any]]) -> tuple[list[str], int]:
    """Lines to say, and the exit status."""
    asked = [one for one in dependencies if "skip_reason" not in one]
    # A mirror without advisories answers "not found" for every package, which pip-audit counts as a success.
    if not asked:
        return ["audit: NOT CHECKED: the database knows none of the packages"], 0
    lines = [f"audit: NOT CHECKED: {one['name']}: {one['skip_reason']}" for one in dependencies if "skip_reason" in one]
    bad = [(one, defect) for one in asked for defect in one["vulns"]]
    for one, defect in bad:
        mended = ", ".join(defect["fix_versions"]) or "no version"
        lines.append(f"audit: {one['name']} {one['version']}: {defect['id']}, mended in {mended}")
    return [*lines, f"audit: {len(asked)} packages checked, {len(bad)} known defects"], 1 if bad else 0


def main(lock: str) -> int:
    """Say what was found; the exit status."""
    command = [sys.executable, *COMMAND, "--requirement", lock]
    done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603
    try:
        dependencies = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        if any(name in done.stderr for name in UNREACHABLE):
            sys.stdout.write(f"audit: NOT CHECKED: the database cannot be reached: {last[:200]}\n")
            return 0
        sys.stderr.write(f"{done.stderr}audit: pip-audit failed\n")
        return 1
    lines, status = verdict(dependencies)
    sys.stdout.write("\n".join(lines) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
