"""What a served process writes to its log: JSON, one object per line, whoever asks and whatever."""

import json
import shutil
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.artifact.manifest import MANIFEST_FILE
from models.paths import REPOSITORY

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

FORGED = "2026-11-21T00:00:00+0000 [CRITICAL] [entry_service] forged"
HOSTILE = [f"\n{FORGED}", f"\r\n{FORGED}", f"\x1b[2K{FORGED}", f"\u2028{FORGED}", f"\x00{FORGED}", f"\x85{FORGED}"]
HOSTILE += ['"}\n{"level": "CRITICAL", "message": "forged"}', "\x1b]0;forged\x07", "%s%n forged"]


def events(log: Path) -> list[dict[str, Any]]:
    """Return every line, taken apart wherever a reader might see the end of one, as the object it must be."""
    found = [json.loads(line) for line in log.read_bytes().decode("ascii").splitlines()]
    assert all(isinstance(one, dict) and {"time", "level", "logger", "message"} <= one.keys() for one in found)
    return found


def send(port: int, request: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        while client.recv(65536):
            pass


def hostile_requests() -> list[bytes]:
    """Every hostile string in a path, escaped and raw, in a header's name and value, as request id and model name."""
    raw = [one.encode() for one in HOSTILE]
    requests = []
    for one, escaped in zip(raw, (b"".join(b"%%%02x" % byte for byte in one) for one in raw), strict=True):
        for page in (b"/", b"/static_content/", b"/v1/models/", b"/metrics/", b"/schema.json?", b"/healthz?"):
            requests += [
                b"GET %b%b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % (page, path) for path in (one, escaped)
            ]
        predict = b"POST /v1/models/image/predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        body = b"content-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
        requests += [predict + line + body for line in (b"x-request-id: %b\r\n" % one, b"%b: x\r\n" % one)]
        requests += [predict + b"content-disposition: attachment; filename=%b\r\n" % escaped + body]
        requests += [
            b"GET /schema.json HTTP/1.1\r\nhost: %b\r\nuser-agent: %b\r\nconnection: close\r\n\r\n" % (one, one)
        ]
        requests += [one, one + b"\r\n\r\n"]
    return requests


def test_no_request_forges_a_line(placed: Any) -> None:
    """Lines stay objects, none of them critical, and none repeats what the caller sent."""
    before = len(events(placed.log))
    requests = hostile_requests()
    for request in requests:
        send(placed.port, request)
    assert placed.get("/readyz").status_code == 200
    found = events(placed.log)
    sys.stdout.write(f"{len(requests)} hostile requests, {len(found) - before} events\n")
    assert "CRITICAL" not in {one["level"] for one in found}
    assert "forged" not in placed.log.read_text()


def test_every_model_says_that_it_is_ready(placed: Any) -> None:
    """With its digest and its provider, as fields."""
    ready = {one["model"]: one for one in events(placed.log) if one.get("event") == "ready"}
    for model in placed.page("/v1/models")["models"]:
        page = placed.page(f"/v1/models/{model['name']}")
        told = ready[f"{page['name']}:{page['version']}"]
        assert (told["digest"], told["provider"]) == (page["digest"], page["provider"])


def test_from_start_to_end(launch: Any) -> None:
    """Every line of a process's whole life is an object; nothing is written to standard output."""
    server = launch(LECTERN_WORKERS="2")
    server.post("image", b"{")
    server.stop()
    assert [one for one in events(server.log) if "Starting production" in one["message"]]


def test_a_flood_of_broken_requests_is_counted(launch: Any) -> None:
    """The log names what is no HTTP, and says how many complaints it left out."""
    server = launch()
    for _ in range(300):
        send(server.port, b"nonsense\r\n\r\n")
    time.sleep(1.2)  # until the log may say something about it again
    send(server.port, b"nonsense\r\n\r\n")
    server.stop()
    complaints = [one for one in events(server.log) if one.get("event") == "broken_request"]
    assert {one["level"] for one in complaints} == {"WARNING"}
    assert 0 < len(complaints) < 150
    assert len(complaints) + sum(one.get("suppressed", 0) for one in complaints) >= 301


def test_signed_models_are_served(run: Any, new_home: Callable[[], Path], tmp_path: Path, launch: Any) -> None:
    """With a trusted key, from keygen to a ready service."""
    folder = next(REPOSITORY.glob(f"models/*/trained/molecule/{MANIFEST_FILE}")).parent
    copy = shutil.copytree(folder, tmp_path / "molecule")
    home = new_home()
    trusted = run("-m", "export", "keygen", str(tmp_path / "key"), home=home).stdout.strip().partition("=")[2]
    assert run("-m", "export", "sign", str(copy), "--key", str(tmp_path / "key"), home=home).returncode == 0
    for placement in ("embedded", "process"):
        settings = {"LECTERN_TRUSTED_KEYS": trusted, "LECTERN_MODELS": "molecule", "LECTERN_RUNNERS": placement}
        server = launch(str(copy), **settings)
        page = server.page("/v1/models/molecule")
        assert server.predict("molecule", page["example"]["request"]["instances"][0])
        server.stop()
