"""Debian's Prometheus, unpacked beside the checkout without being installed: ``python -m monitoring.debian``.

Installing the package would start a service that listens on every address. Unpacking needs no root, leaves the machine
as it was, and `rm -r .prometheus` undoes it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from models.paths import REPOSITORY

FOLDER = REPOSITORY / ".prometheus"
# The others are what the page in the browser is made of; Debian ships them apart.
PACKAGES = (
    "prometheus",
    "fonts-glyphicons-halflings",
    "libjs-bootstrap4",
    "libjs-d3",
    "libjs-eonasdan-bootstrap-datetimepicker",
    "libjs-jquery",
    "libjs-jquery-hotkeys",
    "libjs-moment",
    "libjs-moment-timezone",
    "libjs-mustache",
    "libjs-popper.js",
    "libjs-rickshaw",
)
# 214 of 318 MB, which no page reads.
SURPLUS = ("usr/share/javascript/moment-timezone/data", "usr/share/doc", "usr/share/man")
FETCH_SECONDS = 300


class NotToBeHad(Exception):
    """There is no Prometheus here, and none can be fetched; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """An unpacked or installed Prometheus.

    Attributes:
        prometheus: The server.
        promtool: The checker of rules.
        pages: What Debian's build serves its page from; None for a build that brings its own.
    """

    prometheus: Path
    promtool: Path
    pages: Path | None


def find(folder: Path = FOLDER) -> Programs | None:
    """Return the unpacked Prometheus, else the one on the path, else None; nothing is fetched."""
    if (folder / "usr/bin/prometheus").exists():
        return Programs(
            prometheus=folder / "usr/bin/prometheus",
            promtool=folder / "usr/bin/promtool",
            pages=folder / "usr/share/prometheus/web",
        )
    server, checker = shutil.which("prometheus"), shutil.which("promtool")
    if server is None or checker is None:
        return None
    return Programs(prometheus=Path(server), promtool=Path(checker), pages=None)


def obtain(folder: Path = FOLDER) -> Programs:
    """Return the Prometheus of this machine, or one fetched with apt and unpacked into ``folder``.

    Raises:
        NotToBeHad: If there is none and none can be fetched.
    """
    found = find(folder)
    if found is not None:
        return found
    missing = [name for name in ("apt-get", "dpkg-deb") if shutil.which(name) is None]
    if missing:
        raise NotToBeHad(f"Prometheus is not on the path, and without {missing[0]} it cannot be fetched: install it")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".prometheus-") as scratch:
        unpacked = _unpack(_download(Path(scratch)), Path(scratch) / "root")
        shutil.rmtree(folder, ignore_errors=True)
        unpacked.rename(folder)
    found = find(folder)
    if found is None:
        raise NotToBeHad("Debian's package holds no prometheus")
    return found


def _download(scratch: Path) -> list[Path]:
    """Fetch the packages; where this machine's lists are missing or old, by lists of our own."""
    ours = [f"-oDir::State::Lists={scratch}/lists", f"-oDir::Cache={scratch}/cache", "-oDebug::NoLocking=true"]
    (scratch / "lists/partial").mkdir(parents=True)
    (scratch / "cache/archives/partial").mkdir(parents=True)
    first = _apt(["download", *PACKAGES], scratch)
    if first is not None:
        wrong = _apt([*ours, "update"], scratch) or _apt([*ours, "download", *PACKAGES], scratch)
        if wrong is not None:
            raise NotToBeHad(f"Prometheus is not on the path, and apt cannot fetch it: {wrong}")
    return sorted(scratch.glob("*.deb"))


def _apt(arguments: Sequence[str], folder: Path) -> str | None:
    """Return what apt complains of in the end; None if it did what it was told."""
    sandbox = [f"-oAPT::Sandbox::User={'root' if os.geteuid() == 0 else ''}"]
    try:
        done = subprocess.run(  # noqa: S603
            ["apt-get", "--quiet", *sandbox, *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=FETCH_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {FETCH_SECONDS} s"
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]


def _unpack(packages: Sequence[Path], root: Path) -> Path:
    root.mkdir()
    for package in packages:
        subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)  # noqa: S603
    for name in SURPLUS:
        shutil.rmtree(root / name, ignore_errors=True)
    return root


@click.command(help=__doc__)
def main() -> None:
    """Say where Prometheus is, fetching it first if need be; 1 and a sentence where it cannot be had."""
    try:
        sys.stdout.write(f"{obtain().prometheus}\n")
    except NotToBeHad as error:
        sys.exit(f"lectern: {error}")


if __name__ == "__main__":
    main()
