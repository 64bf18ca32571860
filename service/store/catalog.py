"""Find the models to serve, and where the BentoML model store keeps them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from models.artifact.manifest import MANIFEST_FILE, Manifest, from_bytes, read_artifact
from models.artifact.signature import read_keys, trust_only
from models.errors import ArtifactMissing
from models.paths import REPOSITORY
from service.settings import settings
from service.settings.environment import home
from service.store.active_versions import read_active

# What BentoML lets a name and a version be; nothing else ever becomes a path.
_NAME = re.compile(r"[a-z0-9]([-._a-z0-9]*[a-z0-9])?")
_LATEST = "latest"
# What BentoML writes into a model's folder, and takes one without it for no model.
_MARK = "model.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """One served model: its certificate, and the folder in the model store with its bytes."""

    manifest: Manifest
    folder: Path

    @property
    def name(self) -> str:
        """Return the model's name, as in the address."""
        return self.manifest.model


def shipped_tags() -> dict[str, str]:
    """``name`` to ``name:version`` of every artifact in the repository."""
    found = {}
    for path in sorted((REPOSITORY / "models").glob(f"*/trained/*/{MANIFEST_FILE}")):
        manifest = from_bytes(path.read_bytes(), path)
        found[manifest.model] = manifest.tag
    return found


def find_models(wanted: Iterable[str]) -> list[ServedModel]:
    """Return the models asked for (none: every model in the repository), found in the model store.

    A bare name means the version that was brought live last, else the repository's, and the store's latest for a model
    the repository does not have.

    Raises:
        ArtifactMissing: If the store does not hold one.
        ArtifactMismatch: If its bytes are not what export wrote.
        ArtifactUntrusted: If no key of ``LECTERN_TRUSTED_KEYS`` signed it, and there are such keys.
        DataError: If one of those keys is none.
    """
    # Every process that serves or scores comes by here before it opens a model; what it opens later is held to it too.
    if settings().trusted_keys:
        trust_only(read_keys(settings().trusted_entries))
    shipped, chosen = shipped_tags(), {name: f"{name}:{live.version}" for name, live in read_active().items()}
    tags = [entry if ":" in entry else (shipped | chosen).get(entry, f"{entry}:latest") for entry in wanted]
    served = [find_version(tag) for tag in tags or (chosen.get(name, tag) for name, tag in shipped.items())]
    names = [model.name for model in served]
    if len(set(names)) != len(names):
        raise ArtifactMissing(f"two versions of one model cannot be served at once: {', '.join(names)}")
    return served


def find_version(tag: str) -> ServedModel:
    """Return the model with a tag, ``name:version``, found in the model store.

    Raises:
        ArtifactMissing: If the store does not hold it.
        ArtifactMismatch: If its bytes are not what export wrote.
    """
    folder = find_folder(tag)
    if folder is None:
        there = sorted(path.name for path in (home() / "models").glob("*") if path.is_dir())
        others = f" ({', '.join(there)})" if there else ""
        found = f"model {tag} is not in the model store{others}"
        raise ArtifactMissing(f"{found}; put it there: python -m export install")
    # The whole artifact, so that a damaged one ends the start here: in a worker it would be tried again for ever.
    return ServedModel(manifest=read_artifact(folder)[0], folder=folder)


def installed_at(tag: str) -> float:
    """Return when a model came into the store, seconds since 1970; 0 where that cannot be found."""
    folder = find_folder(tag)
    try:
        return 0.0 if folder is None else (folder / _MARK).stat().st_mtime
    except OSError:
        return 0.0


def find_folder(tag: str) -> Path | None:
    """Return where the model store keeps a model; ``None`` if it does not.

    Read as BentoML writes it (``models/NAME/VERSION``, and the latest version in ``models/NAME/latest``), but without
    BentoML, whose import takes half a second: a batch job would spend a third of its start on it.
    """
    name, _, version = tag.lower().partition(":")
    models = home() / "models"
    if version == _LATEST and _NAME.fullmatch(name):
        try:
            version = (models / name / _LATEST).read_text().strip()
        except (OSError, UnicodeDecodeError):
            return None
    if not (_NAME.fullmatch(name) and _NAME.fullmatch(version)):
        return None
    folder = models / name / version
    return folder if (folder / _MARK).is_file() else None
