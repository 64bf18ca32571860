"""Read from the environment what is no setting: home, parent, devices and display."""

import os
import sys
from pathlib import Path

from models.errors import SettingsError

# Not a setting. A process that asked for its parent when it was ready could get the one that took it in.
PARENT = "SERVICE_PARENT_PID"
# Paths from where the service is started; it runs elsewhere.
FILES = ("LECTERN_KEYS_FILE", "LECTERN_TLS_CERTIFICATE", "LECTERN_TLS_KEY", "LECTERN_JOBS_ROOT")


def named_home() -> Path | None:
    """Return ``BENTOML_HOME``, where it is set."""
    named = os.environ.get("BENTOML_HOME")
    return Path(named) if named else None


def home() -> Path:
    """``BENTOML_HOME``, or where BentoML would put it.

    Raises:
        SettingsError: If nobody says where that is.
    """
    named = named_home()
    if named is not None:
        return named
    try:
        return Path.home() / "bentoml"
    except RuntimeError:
        raise SettingsError("this user has no home directory; set BENTOML_HOME to a folder it can write") from None


def metrics_location() -> Path | None:
    """Return where all processes of the service write their metrics; ``None`` where BentoML has started none."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(folder) if folder else None


def visible_devices() -> str:
    """Return which GPUs this process may see, as CUDA is told; empty: all."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "")


def say_parent() -> None:
    """Tell the processes that this one starts who watches them."""
    os.environ[PARENT] = str(os.getpid())


def parent_pid() -> int:
    """Return who watches this process; whoever started it where nobody said so."""
    return int(os.environ.get(PARENT) or os.getppid())


def has_display() -> bool:
    """Return whether a browser could open here."""
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")) or sys.platform == "darwin"


def bentoml_environment() -> dict[str, str]:
    """Return the environment ``bentoml serve`` gets: usage reports off, its home set.

    uvicorn would believe a local caller's ``X-Forwarded-For``, and with it limit an address of the caller's choice.
    """
    files = {name: os.path.abspath(os.environ[name]) for name in FILES if os.environ.get(name)}
    return {
        **os.environ,
        **files,
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(home()),
        "FORWARDED_ALLOW_IPS": "",
    }
