"""The service on IPv6, and on a name: served, limited and loaded there as on 127.0.0.1."""

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.paths import REPOSITORY
from service.demo.__main__ import is_there

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6 loopback, ::1")


@pytest.fixture(scope="module")
def ours(launch: Any) -> Any:
    """A server on ::1 that limits each address, and has the page."""
    return launch(
        host="[::1]",
        LECTERN_HOST="::1",
        LECTERN_MODELS="viewcount",
        LECTERN_DEMO="true",
        LECTERN_REQUESTS_PER_SECOND="300",
    )


@needs_ipv6
def test_it_listens_on_ipv6(ours: Any) -> None:
    """There only, with its pages and predictions, and it is said where a browser finds it."""
    page = ours.page("/v1/models/viewcount")["example"]
    assert ours.post("viewcount", page["request"]).json() == page["response"]
    assert is_there(f"http://[::1]:{ours.port}/demo/")
    assert not is_there(f"http://127.0.0.1:{ours.port}/demo/")
    assert "whoever reaches" not in ours.log.read_text()


@needs_ipv6
def test_ipv6_addresses_are_limited(ours: Any) -> None:
    """Without keys an address has the limit that one of IPv4 has."""
    with httpx.Client(base_url=ours.url, trust_env=False) as client:
        statuses = [client.post("/v1/models/viewcount/predict", content=b"{}").status_code for _ in range(1500)]
    assert set(statuses) == {415, 429}


@needs_ipv6
def test_load_on_ipv6(ours: Any, tmp_path: Any) -> None:
    """A load test asks an address in brackets."""
    arguments = [
        "run",
        "--host",
        ours.url,
        "--rate",
        "20",
        "--seconds",
        "2",
        "--warm",
        "1",
        "--out",
        str(tmp_path / "x.json"),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "loadtests", *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=120
    )
    assert done.returncode in (0, 1, 4), done.stdout + done.stderr  # how quick it is, is of no matter here
    assert '"viewcount"' in (tmp_path / "x.json").read_text()


@needs_ipv6
def test_every_address(launch: Any) -> None:
    """On :: both kinds of addresses are answered."""
    server = launch(host="[::1]", LECTERN_HOST="::", LECTERN_MODELS="viewcount")
    assert server.get("/readyz").status_code == 200
    if not int(Path("/proc/sys/net/ipv6/bindv6only").read_text()):
        assert httpx.get(f"http://127.0.0.1:{server.port}/readyz", trust_env=False).status_code == 200


def test_a_name(launch: Any) -> None:
    """A name is listened on at its address."""
    server = launch(LECTERN_HOST="localhost", LECTERN_MODELS="viewcount")
    assert server.get("/readyz").status_code == 200
