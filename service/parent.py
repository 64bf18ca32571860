"""Become BentoML's parent process: ``python -m service.parent serve …`` is ``bentoml serve …``, watched."""

import hashlib
import os
from pathlib import Path

import bentoml._internal.utils.circus as circus
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml_cli.cli import cli

from service.settings import home, say_parent
from service.watchdog import watched

# Metrics are written through mapped files: on a full disk that is SIGBUS, and no worker could start any more.
MEMORY = Path("/dev/shm")  # noqa: S108  the folder is made for its user alone


def main() -> None:
    """BentoML's own command line."""
    say_parent()
    if (folder := metrics_folder(home())) is not None:
        BentoMLContainer.prometheus_multiproc_dir.set(str(folder))
    circus.create_standalone_arbiter = watched(circus.create_standalone_arbiter)
    cli()


def metrics_folder(place: Path) -> Path | None:
    """A folder in memory for this user's server at this ``BENTOML_HOME``; ``None`` where there is no such place."""
    mine = MEMORY / f"lectern-{os.getuid()}"
    try:
        mine.mkdir(mode=0o700, exist_ok=True)
        if mine.is_symlink() or mine.stat().st_uid != os.getuid():
            return None
    except OSError:
        return None
    return mine / hashlib.sha256(str(place.resolve()).encode()).hexdigest()[:16]


if __name__ == "__main__":
    main()
