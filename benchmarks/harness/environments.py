"""One environment per peer, below ``runs/peers``, made from what the peer's own file says it needs (PEP 723)."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from models.paths import REPOSITORY

ROOT = REPOSITORY / "runs" / "peers"
PEERS = REPOSITORY / "benchmarks/peers"
MARK = "installed.txt"
_BLOCK = re.compile(r"(?m)^# /// script$\s(?P<content>(?:^#(?:| .*)$\s)+)^# ///$")
_INTERPRETERS = (sys.executable, "/usr/bin/python3.11", "python3.11", "python3")


class Unavailable(Exception):
    """A peer cannot be measured here; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Describe what a file's environment must have.

    Attributes:
        python: Exact version of the interpreter, or empty for any.
        pins: Requirements, each with its version.
    """

    python: str
    pins: tuple[str, ...]


def read_needs(file: Path) -> Needs:
    """The needs at the top of a peer's file."""
    match = _BLOCK.search(file.read_text())
    assert match is not None, f"{file.name} has no script block"
    block = tomllib.loads("".join(line[2:] for line in match["content"].splitlines(keepends=True)))
    return Needs(python=block.get("requires-python", "").removeprefix("=="), pins=tuple(block["dependencies"]))


def needs_of(module: str) -> Needs:
    """The needs of a peer's module, with the codec's."""
    own, codec = read_needs(PEERS / f"{module}.py"), read_needs(PEERS / "codec.py")
    return Needs(python=own.python, pins=(*codec.pins, *own.pins))


def build(name: str, needs: Needs) -> Path:
    """Return the interpreter of an environment, made anew unless it was made from the same needs.

    Raises:
        Unavailable: If it cannot be made.
    """
    folder = ROOT / name
    interpreter, mark = folder / "bin" / "python", folder / MARK
    wanted = "\n".join([needs.python, *needs.pins])
    if interpreter.exists() and mark.exists() and mark.read_text() == wanted:
        return interpreter
    shutil.rmtree(folder, ignore_errors=True)
    _run([_find_interpreter(needs.python), "-m", "venv", str(folder)])
    _run([str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *needs.pins])
    mark.write_text(wanted)
    return interpreter


def versions(interpreter: Path) -> dict[str, str]:
    """Return the versions of every package of an environment."""
    command = [str(interpreter), "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"]
    found = msgspec.json.decode(_run(command), type=list[dict[str, str]])
    return {package["name"].lower(): package["version"] for package in found}


def _find_interpreter(version: str) -> str:
    for candidate in _candidates():
        code = "import platform; print(platform.python_version())"
        done = subprocess.run([candidate, "-c", code], capture_output=True, text=True)  # noqa: S603  our own
        if done.stdout.strip() == version or not version:
            return candidate
    raise Unavailable(f"needs Python {version}, which is not here")


def _candidates() -> Iterator[str]:
    yield from filter(None, map(shutil.which, _INTERPRETERS))


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603  our own
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise Unavailable(f"cannot be installed: {lines[0] if lines else 'no reason given'}")
    return done.stdout
