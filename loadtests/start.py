"""Locust in a process of its own: it patches the standard library of whoever imports it."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from models.paths import REPOSITORY

LOCUSTFILE = Path(__file__).parent / "locustfile.py"


def _free_port() -> int:
    """For master and workers to talk: Locust's own is one for all, and two load tests may run on a machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Workers(NamedTuple):
    """Generator processes that somebody else starts, on other machines: ``locust -f loadtests/locustfile.py --worker``.

    Attributes:
        number: How many to wait for.
        port: Where they find this process.
    """

    number: int
    port: int


def locust(task: Path, host: str, *, processes: int = 1, workers: Workers | None = None, is_quiet: bool = True) -> int:
    """Run a task to its end; Locust's exit status.

    Ctrl-C (and SIGTERM, and the end of the terminal) ends the measurement, and what is known by then is written; a
    second one ends Locust at once.

    Args:
        task: The file that says what to measure.
        host: The service's address.
        processes: That make the load on this machine; one more tells them what to do and watches.
        workers: Instead of them, others to wait for.
        is_quiet: Whether Locust's own statistics stay unsaid; they go to standard error.
    """
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"]
    command += ["--loglevel", "WARNING", "--host", host, "--task", str(task)]
    command += ["--skip-log-setup"] if is_quiet else []
    if workers is not None:
        command += ["--master", "--expect-workers", str(workers.number), "--master-bind-port", str(workers.port)]
    else:
        port = str(_free_port())
        command += ["--processes", str(processes), "--master-bind-host", "127.0.0.1"]
        command += ["--master-bind-port", port, "--master-port", port]
    shown = subprocess.DEVNULL if is_quiet else sys.stderr
    with _interruptible():
        # In a process group of its own the terminal's Ctrl-C reaches it only through here; what comes before it listens
        # waits until it does.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        process = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=shown, process_group=0)  # noqa: S603  our own
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        return _wait(process)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Take the end of the terminal and SIGTERM like Ctrl-C."""
    names = signal.SIGTERM, signal.SIGHUP
    before = {name: signal.signal(name, signal.default_int_handler) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _wait(process: "subprocess.Popen[bytes]") -> int:
    is_interrupted = False
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGTERM if is_interrupted else signal.SIGINT)
            is_interrupted = True
