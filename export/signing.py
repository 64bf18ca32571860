"""Signs manifests with a key that stays offline. Torch-free."""

import os
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from models.artifact.manifest import Manifest, read_artifact, to_bytes
from models.artifact.signature import signature_line, write_signature
from models.errors import DataError


def make_key(file: Path, passphrase: str | None) -> bytes:
    """Write a new private key, for its owner's eyes only; the raw public key.

    Raises:
        DataError: If the file is there already or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    secret: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        secret = serialization.BestAvailableEncryption(passphrase.encode())
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
            opened.write(key.private_bytes(*form, secret))
    except OSError as error:
        raise DataError(file, found=f"{error.strerror}", expected="a new file for a private key") from error
    return key.public_key().public_bytes_raw()


def read_private(file: Path, passphrase: Callable[[], str]) -> Ed25519PrivateKey:
    """Return the private key in a PEM file.

    Args:
        file: Where it is.
        passphrase: Asked only if the key is encrypted.

    Raises:
        DataError: If there is none, or the passphrase is another.
    """
    wanted = "a private Ed25519 key in PEM"
    try:
        text = file.read_bytes()
        secret = passphrase().encode() if b"ENCRYPTED" in text else None
        key = serialization.load_pem_private_key(text, secret)
    except OSError as error:
        raise DataError(file, found=f"{error.strerror}", expected=wanted) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # The cause may quote the file.
        raise DataError(file, found="something else, or another passphrase", expected=wanted) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise DataError(file, found="another kind of key", expected=wanted)
    return key


def sign(folder: Path, key: Ed25519PrivateKey) -> Manifest:
    """Sign an artifact that is what its certificate says; its signature appears whole or not at all.

    Raises:
        ArtifactError: If it is not.
    """
    manifest, _ = read_artifact(folder)
    # Its bytes in the file are these, or it would not have been read.
    signature = key.sign(to_bytes(manifest))
    write_signature(folder, signature_line(key.public_key().public_bytes_raw(), signature))
    return manifest
