"""Become BentoML's parent process: ``python -m service.parent serve …`` is ``bentoml serve …``, watched.

When every worker is ready it says so once, with where the service is and what to do next.
"""

import hashlib
import os
from collections.abc import Collection
from pathlib import Path

import bentoml._internal.utils.circus as circus
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml_cli.cli import cli

from service.address import find_url
from service.demo.pages import ROUTE as DEMO
from service.logs import announce
from service.settings import home, say_parent, settings
from service.watchdog import WORKER, Living, watched

# Metrics are written through mapped files: on a full disk that is SIGBUS, and no worker could start any more.
MEMORY = Path("/dev/shm")  # noqa: S108  the folder is made for its user alone


def main() -> None:
    """BentoML's own command line."""
    say_parent()
    if (folder := metrics_folder(home())) is not None:
        BentoMLContainer.prometheus_multiproc_dir.set(str(folder))
    circus.create_standalone_arbiter = watched(circus.create_standalone_arbiter, greet)
    cli()


def greet(processes: Collection[Living]) -> bool:
    """Say that the service is ready, once all its workers are, and whether they are."""
    ready, current = [one.models for one in processes if one.name.startswith(WORKER)], settings()
    if len(ready) < current.workers:
        return False
    models, url = min(ready), find_url(current)
    options = f"--cacert {current.tls_certificate} " if current.tls_certificate else ""
    options += '-H "x-api-key: KEY" ' if current.keys or current.keys_file else ""
    page = f"; a page to try them: {url}{DEMO}/" if current.demo else ""
    message = (
        f"{models} {'model' if models == 1 else 'models'} ready on {url}; try: curl {options}{url}/v1/models; "
        f"documentation: {url}/{page}; stop: Ctrl-C"
    )
    announce(message, event="serving", models=models, workers=len(ready), url=url)
    return True


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
