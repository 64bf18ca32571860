"""Certified artifacts into the BentoML model store. Torch-free."""

from pathlib import Path

import bentoml
from bentoml.exceptions import NotFound

from models.artifact.manifest import MANIFEST_FILE, MODEL_FILE, Manifest, read_artifact, to_bytes
from models.artifact.signature import read_signature, write_signature
from models.errors import ArtifactMismatch
from models.paths import REPOSITORY


def shipped_folders() -> list[Path]:
    """Folders of the artifacts in the repository, in order of family and name."""
    return sorted(path.parent for path in (REPOSITORY / "models").glob(f"*/trained/*/{MANIFEST_FILE}"))


def install(folder: Path) -> tuple[Manifest, bool]:
    """Verify an artifact and put it into the model store under its explicit version, with its signature if it has one.

    Returns:
        Its manifest, and whether it, its certificate or its signature was new to the store.

    Raises:
        ArtifactError: If it is not what its certificate says, or the store holds other bytes under the same version.
    """
    manifest, content = read_artifact(folder)
    signature = read_signature(folder)
    try:
        known = bentoml.models.get(manifest.tag)
    except NotFound:
        _create(manifest, content, signature)
        return manifest, True
    if known.info.metadata.get("sha256") != manifest.model_sha256:
        raise ArtifactMismatch(
            f"{manifest.tag} is in the model store with other bytes; export with a new version, "
            f"or delete it there: bentoml models delete {manifest.tag}"
        )
    if known.info.metadata.get("digest") == manifest.digest:
        # An unsigned copy of what is signed in the store does not take the signature away.
        if signature is None or signature == read_signature(Path(known.path)):
            return manifest, False
        write_signature(Path(known.path), signature)
        return manifest, True
    # The same model, certified again: the version stands for the bytes, so only its certificate is renewed.
    bentoml.models.delete(manifest.tag)
    _create(manifest, content, signature)
    return manifest, True


def _create(manifest: Manifest, content: bytes, signature: bytes | None) -> None:
    labels = {"project": "lectern", "family": manifest.family, "task": manifest.task}
    facts = {"sha256": manifest.model_sha256, "opset": manifest.opset, "digest": manifest.digest}
    with bentoml.models.create(manifest.tag, labels=labels, metadata=facts) as stored:
        Path(stored.path_of(MODEL_FILE)).write_bytes(content)
        Path(stored.path_of(MANIFEST_FILE)).write_bytes(to_bytes(manifest))
        if signature is not None:
            write_signature(Path(stored.path), signature)
