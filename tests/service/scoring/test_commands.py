"""The command line over a shipped model: run, resume, status, verify, plan, and how each says no."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from export.store import install
from models.datasets import REPOSITORY
from service.scoring.commands import EXITS, HELP, main

ROWS = 60
Call = Callable[..., Result]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model store with the tagger."""
    home = tmp_path_factory.mktemp("store")
    folder = next((REPOSITORY / "models").glob("*/trained/tagging"))
    environment = {**os.environ, "BENTOML_HOME": str(home), "PYTHONPATH": str(REPOSITORY)}
    code = f"from pathlib import Path; from export.store import install; install(Path({str(folder)!r}))"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, cwd=REPOSITORY, capture_output=True)
    yield home


def write(path: Path, rows: int = ROWS) -> None:
    """Sentences; one of them makes no sense."""
    lines = [json.dumps({"tokens": ["a", "dog", "saw"] * (row % 5 + 1)}) for row in range(rows)]
    lines[7] = '{"tokens": ["a", 5]}'
    path.write_text("".join(f"{line}\n" for line in lines))
