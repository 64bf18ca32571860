"""What is looked at before the service starts, and what is said when it has."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from models.errors import SettingsError
from service.__main__ import main
from service.process.supervisor import greet
from service.process.watchdog import _BEAT, Living, beat_file, living, watched
from service.settings import Settings, settings
from service.settings.address import find_address, find_url
from tests.e2e.conftest import free_port


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Settings and a home of the test's own."""
    for name in [name for name in os.environ if name.startswith("LECTERN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    yield
    settings.cache_clear()


def refuse(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    """Return the line with which the service refuses to start."""
    for name, value in {"LECTERN_LOG": "text", **variables}.items():
        monkeypatch.setenv(name, value)
    found = CliRunner().invoke(main)
    assert isinstance(found.exception, SystemExit)
    line = str(found.exception.code)
    assert line.startswith("lectern: ")
    assert len(line.splitlines()) == 1
    return line


def test_help_starts_nothing(tmp_path: Path) -> None:
    """The help names every setting with its default; no home is made."""
    found = CliRunner().invoke(main, ["--help"], terminal_width=200)
    assert found.exit_code == 0
    for field in Settings.__struct_fields__:
        assert f"LECTERN_{field.upper()}" in found.output
    assert "[127.0.0.1]" in found.output
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("word", ["serve", "--port", "--hlep"])
def test_wrong_words_start_nothing(word: str, tmp_path: Path) -> None:
    """An argument that is none is refused with the usage."""
    found = CliRunner().invoke(main, [word])
    assert found.exit_code == 2
    assert found.output.startswith("Usage: ")
    assert not (tmp_path / "home").exists()


def test_everything_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The home, the port, the keys, the certificate and the jobs' folder are all named in one line."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        line = refuse(
            monkeypatch,
            BENTOML_HOME="/dev/null/home",
            LECTERN_PORT=str(other.getsockname()[1]),
            LECTERN_KEYS="nonsense",
            LECTERN_TLS_CERTIFICATE=str(tmp_path / "no.pem"),
            LECTERN_TLS_KEY=str(tmp_path / "no.pem"),
            LECTERN_JOBS_ROOT=str(tmp_path / "nowhere"),
        )
    for words in (
        "BENTOML_HOME must be a folder that this user can write, got /dev/null/home: Not a directory",
        "cannot listen on 127.0.0.1:",
        "LECTERN_KEYS, line 1: ",
        "LECTERN_TLS_CERTIFICATE: ",
        "LECTERN_JOBS_ROOT: ",
    ):
        assert words in line


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody without a home")
def test_nobody_s_home(tmp_path: Path) -> None:
    """A user that the machine does not know, without HOME, is told what to set."""
    script = "import os, locale, service.__main__ as start; os.setuid(12345); start.main([])"
    kept = {name: value for name, value in os.environ.items() if name not in ("HOME", "BENTOML_HOME")}
    done = subprocess.run([sys.executable, "-c", script], env={**kept, "LECTERN_LOG": "text"}, capture_output=True)
    assert done.stderr.decode() == (
        "lectern: this user has no home directory; set BENTOML_HOME to a folder it can write\n"
    )
    assert done.returncode == 1


@pytest.mark.parametrize(("host", "address"), [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("::1", "::1")])
def test_address(host: str, address: str) -> None:
    """Names are looked up, as BentoML takes addresses only, and IPv6 is one of them."""
    if address == "::1" and not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    assert find_address(Settings(host=host, port=free_port())) == address


def test_no_address() -> None:
    """A name that nobody knows is one sentence."""
    with pytest.raises(SettingsError, match=r"cannot listen on nobody\.invalid:3000: "):
        find_address(Settings(host="nobody.invalid"))


@pytest.mark.parametrize(
    ("more", "url"),
    [
        ({}, "http://127.0.0.1:3000"),
        ({"host": "0.0.0.0"}, "http://127.0.0.1:3000"),
        ({"host": "::"}, "http://[::1]:3000"),
        ({"host": "fd00::1", "port": 80}, "http://[fd00::1]:80"),
        ({"tls_certificate": "c", "tls_key": "k"}, "https://127.0.0.1:3000"),
    ],
)
def test_url(more: dict[str, Any], url: str) -> None:
    """What a caller on this machine types."""
    assert find_url(Settings(**more)) == url


def test_greeting(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """With keys and TLS the line shows how to use both; runners are no workers."""
    for name, value in (("KEYS", "k"), ("TLS_CERTIFICATE", "/c.pem"), ("TLS_KEY", "/k.pem"), ("LOG", "text")):
        monkeypatch.setenv(f"LECTERN_{name}", value)
    monkeypatch.setenv("LECTERN_DEMO", "true")
    assert not greet([Living("runner-image", 0)])
    assert greet([Living("runner-image", 0), Living("worker-1", 1)])
    (line,) = capfd.readouterr().err.splitlines()
    assert line.partition(" lectern ")[2] == (
        '1 model ready on https://127.0.0.1:3000; try: curl --cacert /c.pem -H "x-api-key: KEY" '
        "https://127.0.0.1:3000/v1/models; documentation: https://127.0.0.1:3000/; "
        "a page to try them: https://127.0.0.1:3000/demo/; stop: Ctrl-C"
    )


def test_said_once(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """The parent speaks when the last of its workers is ready, and not again when one is replaced."""
    monkeypatch.setenv("LECTERN_WORKERS", "2")
    pids = [1001, 1002]
    watcher = SimpleNamespace(processes=pids)
    arbiter = SimpleNamespace(iter_watchers=lambda: [watcher], manage_watchers=lambda: None)
    looked = watched(lambda watchers, **_: arbiter, greet)([])
    beat_file(0).parent.mkdir(parents=True)
    for count, pid in enumerate([*pids, 1003]):
        if pid == 1003:
            watcher.processes = [1002, 1003]
        beat_file(pid).write_bytes(_BEAT.pack(1e12, 6) + f"worker-{1 + count % 2}".encode())
        looked.manage_watchers()
        looked.manage_watchers()
    assert living()[1003] == Living("worker-1", 6)
    (line,) = capfd.readouterr().err.splitlines()
    told = msgspec.json.decode(line)
    assert (told["event"], told["models"], told["workers"]) == ("serving", 6, 2)
