"""Name the folders of this checkout."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
