"""docs/threat_model.md names only tests that there are."""

import re

import pytest

from models.paths import REPOSITORY


def unknown(page: str) -> set[str]:
    """Tests and test files that a page names and nobody wrote."""
    files = list((REPOSITORY / "tests").rglob("test_*.py"))
    written = {name for file in files for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)}
    return set(re.findall(r"`(test_\w+(?:\.py)?)`", page)) - written - {file.name for file in files}


def test_named_tests_exist() -> None:
    """A promise without its test is found here."""
    page = (REPOSITORY / "docs" / "threat_model.md").read_text()
    assert len(re.findall(r"`test_", page)) > 30
    assert not unknown(page)


@pytest.mark.parametrize("name", ["test_that_nobody_wrote", "test_nothing.py"])
def test_a_missing_test_is_found(name: str) -> None:
    """The control."""
    assert unknown(f"| a | b | `{name}`, `test_named_tests_exist` |") == {name}
