"""Start the service: ``python -m service``, configured by ``LECTERN_*``."""

import fcntl
import os
import socket
import sys
from pathlib import Path

from models.datasets import REPOSITORY
from models.errors import LecternError, SettingsError
from service.access import Access
from service.jobs.place import open_place
from service.logs import last_words
from service.settings import Settings, bentoml_environment, settings
from service.tls import tls_arguments

GRACE_SECONDS = 30


def main() -> None:
    """Check what can be checked cheaply, then become ``bentoml serve`` with a watchdog."""
    try:
        current = settings()
        environment = bentoml_environment()
        _lock(Path(environment["BENTOML_HOME"]))
        _check_port(current)
        Access(current)
        if current.jobs_root:
            open_place(current)
        tls = tls_arguments(current)
    except LecternError as error:
        sys.exit(last_words(error))
    arguments = ["serve", "service.app:Gateway", "--host", current.host, "--port", str(current.port)]
    arguments += tls
    arguments += ["--timeout-graceful-shutdown", str(GRACE_SECONDS)]
    os.chdir(REPOSITORY)
    os.execve(sys.executable, [sys.executable, "-m", "service.parent", *arguments], environment)


def _lock(home: Path) -> None:
    """Hold the BentoML home for this process and what it becomes.

    A second server on the same home would delete the first one's metrics while it runs.
    """
    home.mkdir(parents=True, exist_ok=True)
    lock = os.open(home / "lectern.lock", os.O_CREAT | os.O_RDWR)
    os.set_inheritable(lock, True)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise SettingsError(
            f"another server uses {home}; stop it, or give this one a BENTOML_HOME of its own"
        ) from error


def _check_port(current: Settings) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((current.host, current.port))
        except OSError as error:
            raise SettingsError(f"cannot listen on {current.host}:{current.port}: {error.strerror}") from error


if __name__ == "__main__":
    main()
