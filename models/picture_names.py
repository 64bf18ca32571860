"""Tell pictures from other files by their names: one rule for training and for scoring."""

from pathlib import PurePath, PurePosixPath

# Chrome saves JPEG as ``.jfif``; what is inside is looked at when the file is read, whatever its name.
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp"})
# Where macOS keeps the forks of the files that it packs.
FORKS = "__MACOSX"


def is_picture(name: str | PurePath) -> bool:
    """Return whether a path below a folder of pictures is that of a PNG, JPEG or WebP file.

    Whatever is hidden is passed over: names that begin with a dot, and all that lies in folders of such names
    (``.ipynb_checkpoints``, ``._name`` of macOS), or in ``__MACOSX``.

    Args:
        name: From the folder or the archive on, never the folder's own path.
    """
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not any(map(is_hidden, path.parts))


def is_hidden(step: str) -> bool:
    """Return whether one step of a path is passed over."""
    return step == FORKS or (step.startswith(".") and step not in (".", ".."))
