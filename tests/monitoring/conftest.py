"""Debian's Prometheus for the tests of what it reads; they are skipped where ``make prometheus`` did not fetch it."""

import subprocess
from collections.abc import Callable

import pytest

from monitoring.debian import Programs, find

Promtool = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def programs() -> Programs:
    """Where Prometheus is."""
    found = find()
    if found is None:
        pytest.skip("no Prometheus: make prometheus fetches Debian's")
    return found


@pytest.fixture(scope="session")
def promtool(programs: Programs) -> Promtool:
    """Runs ``promtool …`` to its end."""

    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        command = [str(programs.promtool), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=100)

    return run
