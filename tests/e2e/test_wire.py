"""The short way for predictions in a served process: it is really taken, and can be switched off."""

import socket
import time
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.e2e
LIMIT_SECONDS = 0.5


@pytest.fixture(scope="module", params=["true", "false"])
def wired(request: pytest.FixtureRequest, launch: Any) -> Any:
    """A server with the wire on or off."""
    settings = {"LECTERN_WIRE": request.param, "LECTERN_BODY_TIMEOUT_SECONDS": str(LIMIT_SECONDS)}
    return launch(**settings, LECTERN_MODELS="viewcount")


def test_answers_are_the_same(wired: Any) -> None:
    """The documented example has the documented answer either way."""
    url = wired.url
    page = httpx.get(f"{url}/v1/models/viewcount").json()["example"]
    assert httpx.post(f"{url}/v1/models/viewcount/predict", json=page["request"]).json() == page["response"]


def test_headers_that_never_end(wired: Any) -> None:
    """Either way the headers are watched."""
    with socket.create_connection(("127.0.0.1", wired.port)) as client:
        client.settimeout(LIMIT_SECONDS + 2)
        client.sendall(b"POST /v1/models/viewcount/predict HTTP/1.1\r\nhost: x\r\ncontent-")
        started = time.monotonic()
        assert client.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - started >= LIMIT_SECONDS
