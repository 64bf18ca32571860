"""The short way for predictions in a served process: it is really taken, and can be switched off."""

import socket
import time
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.e2e
LIMIT_SECONDS = 0.5


@pytest.fixture(scope="module", params=["true", "false"])
def wired(request: pytest.FixtureRequest, launch: Any) -> tuple[Any, bool]:
    """A server with the wire on or off, and which."""
    settings = {"LECTERN_WIRE": request.param, "LECTERN_BODY_TIMEOUT_SECONDS": str(LIMIT_SECONDS)}
    server = launch(**settings, LECTERN_MODELS="viewcount")
    return server, request.param == "true"


def test_answers_are_the_same(wired: tuple[Any, bool]) -> None:
    """The documented example has the documented answer either way."""
    url = wired[0].url
    page = httpx.get(f"{url}/v1/models/viewcount").json()["example"]
    assert httpx.post(f"{url}/v1/models/viewcount/predict", json=page["request"]).json() == page["response"]


def test_headers_that_never_end(wired: tuple[Any, bool]) -> None:
    """Only the wire watches the headers: uvicorn waits for ever (so this also shows which of them is listening)."""
    server, is_on = wired
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.settimeout(LIMIT_SECONDS + 2)
        client.sendall(b"POST /v1/models/viewcount/predict HTTP/1.1\r\nhost: x\r\ncontent-")
        started = time.monotonic()
        if is_on:
            assert client.recv(1000).startswith(b"HTTP/1.1 408 ")
            assert time.monotonic() - started >= LIMIT_SECONDS
        else:
            with pytest.raises(TimeoutError):
                client.recv(1000)
