"""Become BentoML's parent process: ``python -m service.process.supervisor serve …`` is ``bentoml serve …``, watched.

When every worker is ready it says so once, with where the service is and what to do next.
"""

import shutil
from collections.abc import Collection
from functools import partial

from bentoml_cli.cli import cli

from service.demo.pages import ROUTE as DEMO
from service.process.patches import keep_metrics_in, watch_supervisor
from service.process.watchdog import WORKER, Living, watched
from service.settings import settings
from service.settings.address import find_url
from service.settings.environment import home, say_parent
from service.telemetry.logs import announce
from service.telemetry.metrics_storage import MEMORY, metrics_folder


def main() -> None:
    """BentoML's own command line."""
    say_parent()
    # This process keeps some too, and there is the reserve.
    if (folder := metrics_folder(home(), settings().workers + 3)) is not None:
        keep_metrics_in(str(folder))
    else:
        announce(f"metrics are kept in {home()}: there is no room for them in {MEMORY}", event="metrics_on_disk")
    watch_supervisor(partial(watched, greet=greet))
    try:
        cli()
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


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


if __name__ == "__main__":
    main()
