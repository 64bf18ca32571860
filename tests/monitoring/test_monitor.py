"""``make monitor`` before anything is started: where Prometheus comes from, what it is told, what goes wrong."""

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.paths import REPOSITORY
from monitoring import debian
from monitoring.__main__ import Unanswered, check, watch
from monitoring.debian import NotToBeHad, find, obtain
from monitoring.local_prometheus import ScrapeTarget, configuration, free_port


class Guarded(http.server.BaseHTTPRequestHandler):
    """Wants a key for its metrics."""

    def do_GET(self) -> None:
        self.send_response(200 if self.headers.get("authorization") == "Bearer good" else 401)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def guarded() -> Iterator[str]:
    """The address of a service that wants a key."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Guarded)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_configuration(tmp_path: Path) -> None:
    """The committed one, aimed at another target, with a key."""
    key = tmp_path / "key"
    made = configuration(ScrapeTarget(address="127.0.0.1:1234", key_file=key, scheme="https", seconds=1))
    (job,) = made["scrape_configs"]
    assert job["job_name"] == "lectern"
    assert job["static_configs"] == [{"targets": ["127.0.0.1:1234"]}]
    assert job["scheme"] == "https"
    assert job["authorization"] == {"type": "Bearer", "credentials_file": str(key)}
    assert made["rule_files"] == [str(REPOSITORY / "monitoring" / "rules" / "*.yml")]
    assert made["global"]["scrape_interval"] == "1s"


def test_no_key_no_authorization() -> None:
    """A service without keys is not sent one."""
    assert "authorization" not in configuration(ScrapeTarget(address="127.0.0.1:1"))["scrape_configs"][0]


def test_nobody_listens(tmp_path: Path) -> None:
    """The sentence says what to do."""
    with pytest.raises(Unanswered, match=r"nothing answers at http://127\.0\.0\.1:\d+ .*: start it with make serve"):
        check(f"http://127.0.0.1:{free_port()}", None)


def test_keys_are_asked_for(guarded: str, tmp_path: Path) -> None:
    """Without a key, with a wrong one, with the right one, with none that can be read."""
    (tmp_path / "bad").write_text("bad\n")
    (tmp_path / "good").write_text("good\n")
    for file in (None, tmp_path / "bad"):
        with pytest.raises(Unanswered, match="wants an API key with the role metrics: make monitor KEY_FILE=FILE"):
            check(guarded, file)
    with pytest.raises(Unanswered, match="the key cannot be read"):
        check(guarded, tmp_path / "none")
    check(guarded, tmp_path / "good")


def test_a_taken_port(guarded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another port is proposed."""
    (tmp_path / "good").write_text("good\n")
    there = debian.Programs(prometheus=Path("/bin/true"), promtool=Path("/bin/true"), pages=None)
    monkeypatch.setattr("monitoring.__main__.obtain", lambda: there)
    port = int(guarded.rpartition(":")[2])
    with pytest.raises(NotToBeHad, match=f"port {port} is taken: make monitor MONITOR_PORT="):
        watch(guarded, tmp_path / "good", port, 1)


def test_a_machine_without_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that Prometheus is to be installed."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find(tmp_path / "none") is None
    with pytest.raises(NotToBeHad, match=r"Prometheus is not on the path, and without apt-get it cannot be fetched"):
        obtain(tmp_path / "none")


def test_apt_that_cannot_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own last line is the reason; both ways are tried, and nothing is left behind."""
    calls = tmp_path / "calls"
    for name, script in {
        "apt-get": f'echo "$*" >> {calls}; echo "E: no network" >&2; exit 100',
        "dpkg-deb": "",
    }.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(NotToBeHad, match=r"apt cannot fetch it: E: no network"):
        obtain(tmp_path / "there")
    assert "download prometheus" in calls.read_text().splitlines()[0]
    assert calls.read_text().splitlines()[1].endswith(" update")
    assert {path.name for path in tmp_path.iterdir()} == {"bin", "calls"}


def test_the_path_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where both programs are installed nothing is fetched."""
    for name in ("prometheus", "promtool"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = obtain(tmp_path / "none")
    assert (found.prometheus, found.pages) == (tmp_path / "prometheus", None)


def test_one_line_and_a_status() -> None:
    """What ``make monitor`` prints when the service is not there."""
    command = [sys.executable, "-m", "monitoring", "--url", f"http://127.0.0.1:{free_port()}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("lectern: nothing answers at ")
    assert done.stderr.count("\n") == 1
