"""``python -m service.demo PID``: wait for the service that its parent PID becomes, say where its page is, and open it.

``make demo`` starts it just before the service, from the shell whose place the service takes. Who asked for its parent
by itself could get the one that took it in, when the service ends at once.
"""

import os
import ssl
import sys
import time
import urllib.error
import urllib.request
import webbrowser

import click

from models.errors import LecternError
from service.demo.pages import ROUTE
from service.settings import Settings, settings
from service.settings.address import find_url
from service.settings.environment import has_display

PATIENCE_SECONDS = 120.0
PAUSE_SECONDS = 0.2


def address(current: Settings) -> str:
    """Return where a browser on this machine finds the page."""
    return f"{find_url(current)}{ROUTE}/"


def is_there(url: str) -> bool:
    """Return whether the page is served; whose certificate it is does not matter for that."""
    trust = ssl._create_unverified_context() if url.startswith("https:") else None  # noqa: S323
    try:
        with urllib.request.urlopen(url, timeout=2, context=trust) as answer:  # noqa: S310 - http or https, see above
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@click.command(help=__doc__)
@click.argument("service", type=int, metavar="[PID]", default=os.getppid)
def main(service: int) -> None:
    """Return when the page was shown, or when there will be none."""
    try:
        url = address(settings())
    except LecternError:
        return  # the service says it
    end = time.monotonic() + PATIENCE_SECONDS
    while not is_there(url):
        if os.getppid() != service or time.monotonic() > end:
            return
        time.sleep(PAUSE_SECONDS)
    sys.stdout.write(f"Try every model in the browser: {url}\n")
    sys.stdout.flush()
    if has_display():
        webbrowser.open(url)


if __name__ == "__main__":
    main()
