"""Names of atoms and classes that a data set of the TU format brings beside its numbers. Standard library only."""

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from models.errors import DataError

# ``Node labels:``, ``Class labels were converted to integer values using this map:``, and so on.
_HEAD = re.compile(r"\W*(node|class|graph|edge)\b.*\b(?:labels?|names?)\b", re.IGNORECASE)
_ENTRY = re.compile(r"\s*(-?\d{1,9})[\s:=,]\s*(\S.*?)\s*$")
_SECTIONS = {"node": "atoms", "class": "classes", "graph": "classes"}
MAX_NAME = 16


class Names(NamedTuple):
    """Names by number, and the file that has them."""

    file: str
    atoms: dict[int, str]
    classes: dict[int, str]

    def of(self, what: str, numbers: Sequence[int]) -> list[str] | None:
        """The names of these atoms or classes; ``None`` unless each has its own, of at most ``MAX_NAME`` characters."""
        known: dict[int, str] = getattr(self, what)
        found = [known.get(number, "") for number in numbers]
        is_good = all(0 < len(name) <= MAX_NAME and name.isprintable() for name in found)
        return found if is_good and len(set(found)) == len(found) else None


NO_NAMES = Names("", {}, {})


def find_names(folder: Path, name: str, given: Path | None) -> Names:
    """Return the names in ``given``, else those that the data set's folder has.

    Raises:
        DataError: If ``given`` cannot be read.
    """
    candidates = [given] if given else [folder / f"{name}_label_readme.txt", folder / "README.txt"]
    for path in candidates:
        try:
            return read_names(path.read_bytes(), path.name)
        except OSError as error:
            if given:
                found = f"a file that cannot be read ({error.strerror})"
                raise DataError(path, found=found, expected="names of atoms or classes") from error
    return NO_NAMES


def read_names(content: bytes, file: str) -> Names:
    """Return the lines of a number and a name below a line with ``node labels`` or ``class labels`` in it.

    A number with two names, as of labels with several components, has none.
    """
    found: dict[str, dict[int, str]] = {"atoms": {}, "classes": {}}
    section: str | None = None
    encoding = "utf-16" if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig"
    for line in content.decode(encoding, "replace").splitlines():
        entry = _ENTRY.match(line)
        if entry and section:
            number, name = int(entry[1]), entry[2]
            found[section][number] = name if found[section].get(number, name) == name else ""
        elif head := _HEAD.match(line):
            section = _SECTIONS.get(head[1].lower())
        elif line.startswith("="):
            section = None
    return Names(file, found["atoms"], found["classes"])
