from pathlib import Path

import msgspec
import pytest

from loadtests.objectives import read_objectives

TEXT = "[objective]\np99_ms = 100\nerror_share = 0.001\n[objective.models.quick]\np99_ms = 50\n"


def written(folder: Path, text: str) -> Path:
    """Return a file of objectives."""
    file = folder / "objectives.toml"
    file.write_text(text)
    return file


def test_objectives_of_single_models_replace_the_first(tmp_path: Path) -> None:
    """A mixture of models is held to the slowest of theirs."""
    found = read_objectives(written(tmp_path, TEXT))
    assert found.of(["quick"]).p99_ms == 50
    assert found.of(["another"]).p99_ms == 100
    assert found.of(["quick", "another"]).p99_ms == 100
    assert found.of([]).p99_ms == 100
    assert found.of(["quick"]).error_share == 0.001


@pytest.mark.parametrize(
    ("right", "wrong"), [("p99_ms = 50", "p99 = 50"), ("p99_ms = 100", ""), ("= 50", "= 0"), ("0.001", "1.5")]
)
def test_what_is_no_objective_is_refused(tmp_path: Path, right: str, wrong: str) -> None:
    """A misspelt field, a missing one, a bound of nothing, a share above the whole."""
    with pytest.raises((ValueError, msgspec.ValidationError)):
        read_objectives(written(tmp_path, TEXT.replace(right, wrong)))
