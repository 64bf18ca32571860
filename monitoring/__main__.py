"""Watch the running service with a real Prometheus: ``make monitor``, or ``python -m monitoring --help``."""

import argparse
import os
import signal
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import webbrowser
from pathlib import Path

from monitoring.debian import NotToBeHad, obtain
from monitoring.local_prometheus import Prometheus, ScrapeTarget, free_port, running

# What the browser shows first.
GRAPHS = (
    "job_model:lectern_requests:rate5m",
    "job_model:lectern_request_seconds:p99_5m",
    "job_model:lectern_requests_failed:ratio_rate5m",
)


class Unanswered(Exception):
    """The service cannot be watched as it is; the message says why, and what to do."""


def check(url: str, key_file: Path | None) -> None:
    """Ask the service for its metrics once, so that a mistake is a sentence here and not a red line on a page.

    Raises:
        Unanswered: If it gives none.
    """
    request = urllib.request.Request(f"{url}/metrics")  # noqa: S310
    if key_file is not None:
        request.add_header("authorization", f"Bearer {_key(key_file)}")
    try:
        urllib.request.urlopen(request, timeout=10).close()  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise Unanswered(
                f"{url}/metrics wants an API key with the role metrics: make monitor KEY_FILE=FILE"
            ) from None
        raise Unanswered(f"{url}/metrics answers {error.code}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Unanswered(f"nothing answers at {url} ({reason}): start it with make serve") from None


def _key(file: Path) -> str:
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Unanswered(f"the key cannot be read: {error}") from None


def watch(url: str, key_file: Path | None, port: int, seconds: int) -> None:
    """Run Prometheus until Ctrl-C or SIGTERM, or until it ends by itself."""
    check(url, key_file)
    parts = urllib.parse.urlsplit(url)
    target = ScrapeTarget(address=parts.netloc, scheme=parts.scheme, key_file=key_file, seconds=seconds)
    programs = obtain()
    try:
        free_port(port)
    except OSError:
        raise NotToBeHad(f"port {port} is taken: make monitor MONITOR_PORT=9091") from None
    with tempfile.TemporaryDirectory(prefix="lectern-monitor-") as folder:
        with running(programs, target, Path(folder), port) as prometheus:
            _say(prometheus, url, seconds)
            status = prometheus.process.wait()
        raise NotToBeHad(f"Prometheus ended by itself, with status {status}")


def _say(prometheus: Prometheus, url: str, seconds: int) -> None:
    sys.stdout.write(
        f"Prometheus watches {url} every {seconds} s: {prometheus.page('alerts')}"
        " (Ctrl-C stops it; what it saw is then gone)\n"
    )
    sys.stdout.flush()
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform == "darwin":
        graphs = {f"g{number}.expr": expression for number, expression in enumerate(GRAPHS)}
        shown = {f"g{number}.tab": "0" for number in range(len(GRAPHS))}
        webbrowser.open(f"{prometheus.page('graph')}?{urllib.parse.urlencode({**graphs, **shown})}")


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Watch; 0 after Ctrl-C, 1 and a sentence when there is nothing to watch or nothing to watch with."""
    parser = argparse.ArgumentParser(prog="python -m monitoring", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:3000", help="of the service (default %(default)s)")
    parser.add_argument("--key-file", type=Path, help="holds an API key with the role metrics")
    parser.add_argument("--port", type=int, default=9090, help="for Prometheus, on 127.0.0.1 (default %(default)s)")
    parser.add_argument("--seconds", type=int, default=5, help="between two scrapes (default %(default)s)")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    try:
        watch(given.url.rstrip("/"), given.key_file, given.port, given.seconds)
    except KeyboardInterrupt:
        sys.stdout.write("\n")
    except (Unanswered, NotToBeHad) as error:
        sys.stderr.write(f"lectern: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
