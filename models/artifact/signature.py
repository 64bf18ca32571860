"""Detached Ed25519 signatures of manifests, and whose this process asks for. Torch-free.

``manifest.sig`` is one line: ``ed25519``, the key's id and, in base64, the signature of the exact bytes of
``manifest.json``. The manifest names the sha256 of ``model.onnx``, so the signature stands for both.

``cryptography`` is imported when it is needed: it takes 80 ms and 11 MB, and most processes trust no key.
"""

import base64
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import ArtifactUntrusted, DataError
from models.small_files import read_small_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SIGNATURE_FILE = "manifest.sig"
KEY_BYTES = 32
_LINE = re.compile(rb"ed25519 ([0-9a-f]{16}) ([A-Za-z0-9+/]{86}==)\n")
_MOST_BYTES = 1024

Keys = dict[str, "Ed25519PublicKey"]
_trusted: Keys = {}


def key_id(public: bytes) -> str:
    """Return the name of a raw public key: 16 hexadecimal digits of its sha256."""
    return hashlib.sha256(public).hexdigest()[:16]


def signature_line(public: bytes, signature: bytes) -> bytes:
    """Return what a signature file holds, of a raw public key and the 64 bytes it signed with."""
    return f"ed25519 {key_id(public)} {base64.b64encode(signature).decode()}\n".encode()


def read_keys(entries: Iterable[str]) -> Keys:
    """Public keys by their ids.

    Args:
        entries: Each the base64 of a raw public key, or a file with that in it or with the key as PEM.

    Raises:
        DataError: If one is neither, or there is none at all: that would be to trust everybody. An entry is named by
            its number, as it may be a secret in the wrong place.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    keys = {}
    for number, entry in enumerate(entries, 1):
        raw = _raw_key(entry.encode()) or _key_in(Path(entry))
        if raw is None:
            raise DataError(f"trusted key {number}", found="none", expected="a public Ed25519 key, in base64 or a file")
        keys[key_id(raw)] = Ed25519PublicKey.from_public_bytes(raw)
    if not keys:
        raise DataError("trusted keys", found="none", expected="at least one")
    return keys


def _raw_key(text: bytes) -> bytes | None:
    try:
        raw = base64.b64decode(text.strip(), validate=True)
    except ValueError:
        return None
    return raw if len(raw) == KEY_BYTES else None


def _key_in(file: Path) -> bytes | None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        text, _ = read_small_file(file, _MOST_BYTES)
        if raw := _raw_key(text):
            return raw
        found = serialization.load_pem_public_key(text)
    except (OSError, ValueError, UnsupportedAlgorithm):
        return None
    return found.public_bytes_raw() if isinstance(found, Ed25519PublicKey) else None


def trust_only(keys: Keys) -> None:
    """From now on this process reads an artifact only if one of these keys signed it; without keys, any artifact.

    A property of the process, so that no way of loading an artifact can leave it out.
    """
    global _trusted
    _trusted = dict(keys)


def read_signature(folder: Path) -> bytes | None:
    """Return the artifact's signature file; ``None`` when it has none."""
    try:
        with (folder / SIGNATURE_FILE).open("rb") as opened:
            return opened.read(_MOST_BYTES)
    except OSError:
        return None


def write_signature(folder: Path, line: bytes) -> None:
    """Put a signature beside its manifest, in place of an older one."""
    aside = folder / f".{SIGNATURE_FILE}.part"
    aside.write_bytes(line)
    aside.replace(folder / SIGNATURE_FILE)


def check_signature(manifest: bytes, folder: Path) -> None:
    """Check that a trusted key signed these bytes; a process that trusts no key checks nothing.

    Raises:
        ArtifactUntrusted: If none did.
    """
    if not _trusted:
        return
    line = read_signature(folder)
    if line is None:
        raise ArtifactUntrusted(f"{folder}: not signed, and only signed artifacts are trusted here")
    found = _LINE.fullmatch(line)
    if found is None:
        raise ArtifactUntrusted(f"{folder / SIGNATURE_FILE}: not an Ed25519 signature")
    _verify(manifest, found[1].decode(), found[2], folder)


def _verify(manifest: bytes, identity: str, text: bytes, folder: Path) -> None:
    from cryptography.exceptions import InvalidSignature

    key, signature = _trusted.get(identity), base64.b64decode(text)
    if key is None:
        raise ArtifactUntrusted(f"{folder}: signed by key {identity}, trusted are {', '.join(_trusted)}")
    try:
        # Bits of the last character that base64 does not use: two files would stand for one signature.
        if base64.b64encode(signature) != text:
            raise InvalidSignature
        key.verify(signature, manifest)
    except InvalidSignature as error:
        raise ArtifactUntrusted(
            f"{folder}: its manifest is not the one that key {identity} signed, or the signature was changed"
        ) from error
