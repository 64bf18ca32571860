"""The torture trials in brief: those bars that hold on a busy machine too. ``make torture`` holds all of them.

What becomes of killed, stopped and ended processes is in ``test_lifecycle.py``.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from chaos.service.report import load
from models.paths import REPOSITORY

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

# The share of a trial's size that is run here, and which bars are no matter of speed; all of them where none is named.
TRIALS = {
    "deadlines": (0.1, ("in vain", "counters", "control")),
    "disconnects": (0.1, ()),
    "clock": (0.1, ()),
    "hot_swap": (0.05, ()),
    "soak": (0.03, ()),
    "paths": (0.02, ("new series", "control")),
    "truth": (0.02, ()),
}


@pytest.mark.parametrize("name", TRIALS)
def test_the_trial_meets_its_bars(name: str, tmp_path: Path) -> None:
    """And its control, where it has one, does not."""
    share, wanted = TRIALS[name]
    command = [
        sys.executable,
        "-m",
        "chaos.service",
        "--only",
        name,
        "--share",
        str(share),
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=280)
    assert (tmp_path / "torture.json").exists(), done.stderr[-3000:]
    (verdict,) = load(tmp_path / "torture.json").verdicts
    held = [bar for bar in verdict.bars if not wanted or any(words in bar.promise for words in wanted)]
    missed = [f"{bar.promise}: {bar.found}" for bar in verdict.bars if bar in held and not bar.is_met]
    assert len(held) >= max(1, len(wanted)), done.stdout[-3000:]
    assert not missed, done.stdout[-3000:]
