"""Describe this build: its code, and the libraries it runs on."""

import platform
import subprocess
from functools import lru_cache
from importlib.metadata import version

import onnxruntime

from models.paths import REPOSITORY

VERSION = "0.1.0"
UNKNOWN = "unknown"
_GIT_SECONDS = 5.0


@lru_cache(maxsize=1)
def build_info() -> dict[str, str]:
    """Return the version and the commit of Lectern, and the versions of what computes and serves."""
    found = {"version": VERSION, "commit": _commit(), "python": platform.python_version()}
    return found | {"onnxruntime": onnxruntime.__version__, "bentoml": version("bentoml")}


def _commit() -> str:
    """Return the checkout's commit; unknown in a Bento, which has none."""
    if not (REPOSITORY / ".git").exists():  # git would look for one in the folders above
        return UNKNOWN
    try:
        run = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN
    return run.stdout.strip()
