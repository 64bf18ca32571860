"""Say the command that goes on with a job, as it can be typed."""

import shlex
import shutil
import sys
from pathlib import Path

from service.scoring.execution.destination import Out
from service.settings.environment import named_home


def resuming(out: Out, work: Path | None = None) -> str:
    """Return the command that goes on with a job, to be typed in any shell at the folder where this one was."""
    more = ["--work", str(work)] if work else []
    store = named_home()
    # make sets it for its own commands alone.
    begin = f"BENTOML_HOME={shlex.quote(str(from_here(store)))} " if store else ""
    return begin + shlex.join([interpreter(), "-m", "service.scoring", "resume", str(out), *more])


def interpreter() -> str:
    """Return what to call the Python that runs this: ``python`` may be none, or one that knows nothing of scoring."""
    found = shutil.which("python")
    if found is not None and Path(found).absolute() == Path(sys.executable):
        return "python"
    return str(from_here(Path(sys.executable)))


def from_here(path: Path) -> Path:
    """Return a path from the current folder on, where it lies below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
