"""Start the service: ``python -m service``, configured by ``LECTERN_*``."""

import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import click

from models.errors import LecternError, SettingsError
from models.paths import REPOSITORY
from service.auth.access import Access
from service.jobs.paths import open_job_paths
from service.server.tls import tls_arguments
from service.settings import PREFIX, Settings, settings
from service.settings.address import find_address
from service.settings.environment import bentoml_environment
from service.settings.variables import describe
from service.telemetry.logs import format_fatal

GRACE_SECONDS = 30


class ServeCommand(click.Command):
    """A command whose help lists the settings: it has no options."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each setting with what it means and its default."""
        with formatter.section("Settings, as environment variables"):
            formatter.write_dl([*describe(Settings, PREFIX)])


@click.command(cls=ServeCommand, help="Serve every model of the model store, until Ctrl-C.")
def main() -> None:
    """Check what can be checked cheaply, then become ``bentoml serve`` with a watchdog."""
    try:
        current = settings()
        environment = bentoml_environment()
        _check_all(current, Path(environment["BENTOML_HOME"]))
        host, tls = find_address(current), tls_arguments(current)
    except LecternError as error:
        sys.exit(format_fatal(error))
    arguments = ["serve", "service.app:Gateway", "--host", host, "--port", str(current.port)]
    arguments += tls
    arguments += ["--timeout-graceful-shutdown", str(GRACE_SECONDS)]
    os.chdir(REPOSITORY)
    os.execve(sys.executable, [sys.executable, "-m", "service.process.supervisor", *arguments], environment)


def _check_all(current: Settings, home: Path) -> None:
    """Raise ``SettingsError`` with everything that is wrong, or return holding the lock on the home."""
    checks: list[Callable[[], object]] = [partial(_lock, home), partial(find_address, current)]
    checks += [partial(Access, current), partial(tls_arguments, current)]
    if current.jobs_root:
        checks.append(partial(open_job_paths, current))
    faults = [*_faults(checks)]
    if faults:
        raise SettingsError("; ".join(faults))


def _faults(checks: list[Callable[[], object]]) -> Iterator[str]:
    for check in checks:
        try:
            check()
        except LecternError as error:
            yield str(error)


def _lock(home: Path) -> None:
    """Hold the BentoML home for this process and what it becomes.

    A second server on the same home would delete the first one's metrics while it runs.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = os.open(home / "lectern.lock", os.O_CREAT | os.O_RDWR)
    except OSError as error:
        reason = f"BENTOML_HOME must be a folder that this user can write, got {home}: {error.strerror}"
        raise SettingsError(reason) from error
    os.set_inheritable(lock, True)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise SettingsError(
            f"another server uses {home}; stop it, or give this one a BENTOML_HOME of its own"
        ) from error


if __name__ == "__main__":
    main()
