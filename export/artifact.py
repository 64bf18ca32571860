"""Write an artifact: all of its files, or none."""

from pathlib import Path

from models.artifact.manifest import (
    MANIFEST_FILE,
    MODEL_FILE,
    Manifest,
    to_bytes,
)


def write_artifact(folder: Path, manifest: Manifest, content: bytes) -> None:
    """Write both files aside, then rename: the manifest last, since it is what makes an artifact one."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in ((MODEL_FILE, content), (MANIFEST_FILE, to_bytes(manifest))):
        aside = folder / f".{name}"
        aside.write_bytes(part)
        aside.replace(folder / name)
