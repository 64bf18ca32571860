"""A short form of ``python -m chaos.batch``: real jobs killed at random instants."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chaos.batch import kills
from chaos.batch.__main__ import prepare
from chaos.batch.inputs import FORMATS
from chaos.batch.kills import hold
from service.scoring.execution.disk import Disk

pytestmark = pytest.mark.e2e


def test_killed_at_random(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runner, worker or all of them; one trial in two once more while it resumes."""
    monkeypatch.setattr(kills, "AGAIN", 0.5)
    asked = prepare(FORMATS["csv"], tmp_path)
    tally = hold(asked, tmp_path, "out.parquet", trials=4, seed=1)
    assert tally.is_met, tally
    assert tally.kills > 0


class Forgetful(Disk):
    """Control: a part is what happens to be there."""

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        if target.name == "out.parquet" and (target.parent / "again").exists():
            target.write_bytes(target.read_bytes()[:-1])
        (target.parent / "again").touch()


def test_other_bytes_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: an output that is one byte short at its second time is a difference."""
    monkeypatch.setattr(kills, "Disk", Forgetful)
    monkeypatch.setattr(kills, "_undisturbed", undisturbed(kills._undisturbed, tmp_path))
    tally = hold(prepare(FORMATS["csv"], tmp_path), tmp_path, "out.parquet", trials=1)
    assert tally.differences
    assert not tally.is_met


def undisturbed(real: Callable[..., tuple[float, str]], folder: Path) -> Callable[..., tuple[float, str]]:
    """The undisturbed run, before anything is forgotten."""

    def run(*args: Any) -> tuple[float, str]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kills, "Disk", Disk)
            found = real(*args)
        (folder / "again").touch()
        return found

    return run
