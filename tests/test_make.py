"""The Makefile: values arrive as typed, misspelt ones are refused, half an installation is never taken for one."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

from models.paths import REPOSITORY

Make = Callable[..., "subprocess.CompletedProcess[str]"]
MAKEFILE = (REPOSITORY / "Makefile").read_text()
TAKES = {verb: names.split() for verb, names in re.findall(r"^TAKES_(\w+) := (.*)$", MAKEFILE, re.MULTILINE)}
RECIPES = dict(re.findall(r"^([a-z0-9]+):.*\n((?:\t.*\n)*)", MAKEFILE, re.MULTILINE))
# What only switches a flag on.
SWITCHES = re.findall(r"\$\(if \$\(([A-Z]+)\),--[a-z-]+\)", MAKEFILE)
AWKWARD = "my  views (1) $HOME $$x `id` 'a' \"b\" #c.csv"
RECORDER = """#!/bin/sh
for argument in "$@"; do printf '%s\\0' "$argument" >> "$RECORD"; done
exit "${STATUS:-0}"
"""


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Run make in a checkout whose path has a blank and whose two interpreters only write down what they are asked."""
    checkout = tmp_path / "a checkout"
    for name in (".venv", ".venv-serve"):
        (checkout / name / "bin").mkdir(parents=True)
        (checkout / name / "bin" / "python").write_text(RECORDER)
        (checkout / name / "bin" / "python").chmod(0o755)
        (checkout / name / ".installed").touch()
    (checkout / "requirements").mkdir()
    interpreter = tmp_path / "an interpreter"
    interpreter.write_text(f"#!/bin/sh\nexec '{sys.executable}' \"$@\"\n")
    interpreter.chmod(0o755)
    for name in ("Makefile", "requirements/serve.txt", "pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, checkout / name)
        os.utime(checkout / name, (0, 0))

    def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        taken = {name for names in TAKES.values() for name in names} | {"MAKEFLAGS", "MFLAGS", "MAKELEVEL"}
        kept = {name: value for name, value in os.environ.items() if name not in taken}
        kept |= {"PYTHON": str(interpreter), "RECORD": str(checkout / "record"), **environment}
        return subprocess.run(["make", *arguments], cwd=checkout, env=kept, capture_output=True, text=True)

    return run


def asked(make: Make, tmp_path: Path, *arguments: str, **environment: str) -> list[str]:
    """Return what the interpreters of that checkout were asked, all in one."""
    done = make(*arguments, **environment)
    assert done.returncode == 0, done.stderr
    return (tmp_path / "a checkout" / "record").read_text().split("\0")


@pytest.mark.parametrize("verb", sorted(TAKES.keys() - {"setup"}))
def test_values_arrive_as_typed(verb: str, make: Make, tmp_path: Path) -> None:
    """Blanks, brackets, quotes, dollars and hashes of a value are part of it, in every verb that takes one."""
    plain = [name for name in TAKES[verb] if name not in (*SWITCHES, "OPTIONS", "MONITOR_PORT")]
    found = asked(make, tmp_path, verb, *(f"{name}={name}{AWKWARD}" for name in plain))
    assert [name for name in plain if f"{name}{AWKWARD}" not in found] == []


def test_options_are_words_of_the_shell(make: Make, tmp_path: Path) -> None:
    """Several options fit in one value, and quotes in it keep a blank; they stand before what could look like one."""
    found = asked(make, tmp_path, "score", "MODEL=m", "IN=-i.csv", "OUT=o", "OPTIONS=--delimiter ';' --work 'a b'")
    assert found[-10:] == ["run", "--delimiter", ";", "--work", "a b", "--", "m", "-i.csv", "o", ""]


def test_the_home_folder_is_meant(make: Make, tmp_path: Path) -> None:
    """``IN=~/views.csv`` works in shells that leave it to the command; elsewhere a tilde is a letter."""
    found = asked(make, tmp_path, "score", "MODEL=m", "IN=~/my ~/views.csv", "OUT=a~b", HOME="/home/me")
    assert found[-4:] == ["m", "/home/me/my ~/views.csv", "a~b", ""]


def test_the_table_says_what_recipes_read() -> None:
    """A verb takes exactly the variables that its recipe reads, so that none is refused and none passed over."""
    constant = {"SERVE", "DEV", "LOCK", "LECTERN_PORT"}
    read = {verb: set(re.findall(r"\$\((?:if \$\()?([A-Z_]+)\)", text)) - constant for verb, text in RECIPES.items()}
    read = {verb: names | set(re.findall(r"\$\(call need,([A-Z]+)", RECIPES[verb])) for verb, names in read.items()}
    assert {verb: names for verb, names in read.items() if names} == {
        verb: set(names) for verb, names in TAKES.items() if verb != "setup"
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["loadtest", "RTE=200"], "make loadtest takes no RTE: did you mean RATE?"),
        (["score", "MODEL=m", "in=x"], "make score takes no in: did you mean IN?"),
        (["loadtest", "MODEL=image"], "make loadtest takes no MODEL: did you mean MODELS?"),
        (["serve", "LECTRN_PORT=3"], "make serve takes no LECTRN_PORT: did you mean LECTERN_PORT?"),
        (["serve", "PORT=3001"], "make serve takes no PORT: did you mean LECTERN_PORT?"),
        (["serve", "ZZZ=3"], "make serve takes no ZZZ: it takes only settings (LECTERN_*)"),
        (["setup", "ENVIRONMENT=prod"], "ENVIRONMENT must be serve or dev, got prod"),
        (["score", "MODEL=m"], "IN is missing: make score MODEL=tagging IN=corpus.jsonl OUT=tags.parquet"),
    ],
)
def test_strange_variables_are_refused(arguments: list[str], words: str, make: Make, tmp_path: Path) -> None:
    """A variable that the verb does not take ends make before anything runs, with the nearest one it takes."""
    done = make(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert not (tmp_path / "a checkout" / "record").exists()


def test_the_status_of_a_command_is_said(make: Make) -> None:
    """Make knows one status for all failures, so the documented one of the command stands in its last line."""
    done = make("score", "MODEL=m", "IN=i", "OUT=o", STATUS="4")
    assert done.returncode == 2
    assert done.stderr.rstrip().endswith("Error 4")


def test_every_verb_is_a_phony_target(make: Make, tmp_path: Path) -> None:
    """A file named like a verb does not stand in its way, and no name is declared that is no verb."""
    declared = make("--print-data-base", "--dry-run", "help").stdout
    (names,) = re.findall(r"^\.PHONY: (.*)$", declared, re.MULTILINE)
    assert sorted(names.split()) == sorted(RECIPES.keys() | {"setup"})
    (tmp_path / "a checkout" / "test").touch()
    assert "pytest" in asked(make, tmp_path, "test")


def wheel(folder: Path, version: str) -> str:
    """Write a package of one module; returns its line of a lock."""
    path = folder / f"tiny-{version}-py3-none-any.whl"
    about = f"tiny-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny.py", f"print({version!r})\n")
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", f"tiny.py,,\n{about}/METADATA,,\n{about}/WHEEL,,\n{about}/RECORD,,\n")
    return f"tiny=={version} --hash=sha256:{sha256(path.read_bytes()).hexdigest()}\n"


@pytest.mark.e2e
def test_half_an_installation_is_done_again(tmp_path: Path) -> None:
    """An installation that broke off is made anew, a changed lock is installed, beside another checkout's or not."""
    lines = {version: wheel(tmp_path, version) for version in ("1.0", "2.0")}
    where = {**os.environ, "PIP_FIND_LINKS": str(tmp_path), "PIP_NO_INDEX": "1", "PYTHON": sys.executable}
    checkouts = [tmp_path / name for name in ("a checkout", "b")]
    interpreter = Path(sys.executable).resolve()
    touched = interpreter.stat().st_mtime_ns

    def install(checkout: Path, *, status: int = 0, **environment: str) -> None:
        command = ["make", "setup", "ENVIRONMENT=serve"]
        done = subprocess.run(command, cwd=checkout, env={**where, **environment}, capture_output=True, text=True)
        assert done.returncode == status, done.stderr

    def version(checkout: Path) -> str:
        code = [checkout / ".venv-serve/bin/python", "-c", "import tiny"]
        return subprocess.run(code, capture_output=True, text=True).stdout.strip()

    for checkout in checkouts:
        (checkout / "requirements").mkdir(parents=True)
        shutil.copy(REPOSITORY / "Makefile", checkout)
        (checkout / "requirements/serve.txt").write_text(lines["1.0"])
    first, second = checkouts
    install(first, status=2, PIP_FIND_LINKS=str(tmp_path / "away"))
    install(second)
    install(first)
    assert [version(one) for one in checkouts] == ["1.0", "1.0"]
    (first / "requirements/serve.txt").write_text(lines["2.0"])
    install(second)
    install(first, status=2, PIP_FIND_LINKS=str(tmp_path / "away"))
    # As a kill in the middle of unpacking leaves it: pip calls this package installed.
    pip = [first / ".venv-serve/bin/python", "-m", "pip", "install", "--quiet", "tiny==2.0"]
    subprocess.run(pip, env=where, check=True)
    next(first.glob(".venv-serve/lib/*/site-packages/tiny.py")).write_text("")
    install(first)
    assert [version(one) for one in checkouts] == ["2.0", "1.0"]
    assert interpreter.stat().st_mtime_ns == touched


@pytest.mark.e2e
def test_what_is_skipped_is_said(tmp_path: Path) -> None:
    """The last lines of ``make test`` name each missing dataset, the folder it is looked for in, and how to get it."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/models/test_tagging_data.py"]
    without = {**os.environ, "LECTERN_DATA": str(tmp_path), "PYTEST_ADDOPTS": ""}
    done = subprocess.run(command, cwd=REPOSITORY, env=without, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    end = done.stdout[done.stdout.index("short test summary info") :]
    assert f"is not in {tmp_path}: make data downloads it, LECTERN_DATA names another folder" in end


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what serves, in a path with blanks, with the environment of this checkout."""
    for name in (".venv-serve", ".venv"):
        if (REPOSITORY / name / ".installed").exists():
            break
    else:
        pytest.skip("this checkout has no environment that make installed: make setup")
    copy = tmp_path / "a (second) checkout"
    for room in ("models", "export", "service", "requirements"):
        shutil.copytree(REPOSITORY / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "Makefile", copy)
    (copy / ".venv-serve").symlink_to(REPOSITORY / name)
    os.utime(copy / "requirements/serve.txt", (0, 0))
    return copy


@pytest.mark.e2e
def test_score_and_serve_where_paths_have_blanks(checkout: Path, tmp_path: Path) -> None:
    """The commands of the README as typed, on file names that a browser gives, with the environment that serves."""
    (checkout / "a (1).jsonl").write_text('{"text": "I saw a saw"}\n')
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LECTERN_", "BENTOML_"))}
    # An environment that is not whole is not to be made anew here: it is this checkout's.
    kept["PYTHON"] = "false"
    command = ["make", "score", "MODEL=tagging", "IN=a (1).jsonl", "OUT=b $x.jsonl"]
    done = subprocess.run(command, cwd=checkout, env=kept, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (row,) = (json.loads(line) for line in (checkout / "b $x.jsonl").read_text().splitlines())
    assert row["prediction"]["tags"] == ["PRON", "VERB", "DET", "NOUN"]
    log = (tmp_path / "log").open("wb")
    serve = ["make", "serve", f"LECTERN_PORT={port}"]
    with subprocess.Popen(serve, cwd=checkout, env=kept, stdout=log, stderr=log, start_new_session=True) as process:
        try:
            url, until = f"http://127.0.0.1:{port}", time.monotonic() + 60
            while not is_ready(url):
                is_well = time.monotonic() < until and process.poll() is None
                assert is_well, (tmp_path / "log").read_text()[-3000:]
                time.sleep(0.05)
            answer = httpx.post(f"{url}/v1/models/tagging/predict", json={"instances": [{"text": "I saw a saw"}]})
            assert answer.json()["predictions"][0]["tags"] == row["prediction"]["tags"]
        finally:
            os.killpg(process.pid, signal.SIGINT)


def is_ready(url: str) -> bool:
    """Return whether the service there takes requests."""
    try:
        return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
