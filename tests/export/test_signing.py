"""Signed manifests: what a trusted key signed is read, and nothing else."""

import base64
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bentoml
import msgspec
import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from export.__main__ import main
from export.store import install
from models.artifact.manifest import MANIFEST_FILE, MODEL_FILE, from_bytes, read_artifact, to_bytes
from models.artifact.signature import SIGNATURE_FILE, read_keys, trust_only
from models.errors import ArtifactUntrusted, DataError
from models.runtime.session import open_artifact
from service.settings import settings
from service.store.catalog import find_models

PEM = serialization.Encoding.PEM


@pytest.fixture(autouse=True)
def nobody_trusted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whom this process trusts is as it was before."""
    yield
    trust_only({})
    monkeypatch.undo()
    settings.cache_clear()


@pytest.fixture
def folder(tmp_path: Path, shipped_folder: Callable[[str], Path]) -> Path:
    """A copy of a shipped artifact, unsigned."""
    return shutil.copytree(
        shipped_folder("molecule"), tmp_path / "molecule", ignore=shutil.ignore_patterns(SIGNATURE_FILE)
    )


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty model store."""
    position = tmp_path / "store" / "models"
    position.mkdir(parents=True)
    monkeypatch.setenv("BENTOML_HOME", str(position.parent))
    with BentoMLContainer.model_store.patch(ModelStore(position)):
        yield position


def ask(*arguments: object, typed: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments], input=typed)


def keygen(file: Path) -> str:
    """Make a key; its public half, as LECTERN_TRUSTED_KEYS takes it."""
    done = ask("keygen", file)
    assert done.exit_code == 0, done.output
    name, _, public = done.output.strip().partition("=")
    assert name == "LECTERN_TRUSTED_KEYS"
    return public


def sign(folder: Path, key: Path) -> None:
    done = ask("sign", folder, "--key", key)
    assert done.exit_code == 0, done.output


def trust(*entries: str) -> None:
    trust_only(read_keys(entries))


def refusal(folder: Path) -> str:
    """Return the one line with which the artifact is refused, by every way in."""
    with pytest.raises(ArtifactUntrusted) as caught:
        read_artifact(folder)
    with pytest.raises(ArtifactUntrusted):
        open_artifact(folder)
    line = str(caught.value)
    assert line.startswith(str(folder))
    assert "\n" not in line
    return line


def test_signed_and_trusted(folder: Path, tmp_path: Path) -> None:
    """The control: what a trusted key signed is read; the signature is Ed25519 over the exact bytes of the file."""
    public = keygen(tmp_path / "key")
    sign(folder, tmp_path / "key")
    before = read_artifact(folder)
    trust(public)
    assert read_artifact(folder) == before
    scheme, _, text = (folder / SIGNATURE_FILE).read_text().split()
    assert scheme == "ed25519"
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public))
    key.verify(base64.b64decode(text), (folder / MANIFEST_FILE).read_bytes())


def test_without_trusted_keys_nothing_is_asked(folder: Path) -> None:
    """Signing is an option."""
    assert read_artifact(folder)[0].model == "molecule"


def test_no_signature(folder: Path, tmp_path: Path) -> None:
    """An unsigned artifact is refused."""
    trust(keygen(tmp_path / "key"))
    assert "not signed" in refusal(folder)


def test_signed_by_somebody_else(folder: Path, tmp_path: Path) -> None:
    """Another key's signature is refused, also under the trusted key's name."""
    public = keygen(tmp_path / "mine")
    keygen(tmp_path / "theirs")
    sign(folder, tmp_path / "mine")
    name = (folder / SIGNATURE_FILE).read_text().split()[1]
    sign(folder, tmp_path / "theirs")
    trust(public)
    assert f"trusted are {name}" in refusal(folder)
    line = (folder / SIGNATURE_FILE).read_text().split()
    (folder / SIGNATURE_FILE).write_text(f"ed25519 {name} {line[2]}\n")
    assert f"not the one that key {name} signed" in refusal(folder)


def test_a_manifest_written_anew(folder: Path, tmp_path: Path) -> None:
    """Somebody changes the model and certifies it again, so that every digest fits: only the signature tells."""
    public = keygen(tmp_path / "key")
    sign(folder, tmp_path / "key")
    manifest = from_bytes((folder / MANIFEST_FILE).read_bytes(), folder)
    (folder / MANIFEST_FILE).write_bytes(to_bytes(msgspec.structs.replace(manifest, summary="better")))
    assert read_artifact(folder)[0].summary == "better"
    trust(public)
    assert "not the one that key" in refusal(folder)


def test_signed_again(folder: Path, tmp_path: Path) -> None:
    """After a change its owner signs again, and it is read again."""
    public = keygen(tmp_path / "key")
    sign(folder, tmp_path / "key")
    manifest = from_bytes((folder / MANIFEST_FILE).read_bytes(), folder)
    (folder / MANIFEST_FILE).write_bytes(to_bytes(msgspec.structs.replace(manifest, summary="better")))
    sign(folder, tmp_path / "key")
    trust(public)
    assert read_artifact(folder)[0].summary == "better"


def test_every_flipped_bit_of_a_signature(folder: Path, tmp_path: Path) -> None:
    """No bit of the signature file can be another; nor may it be longer, shorter or empty."""
    public = keygen(tmp_path / "key")
    sign(folder, tmp_path / "key")
    trust(public)
    file = folder / SIGNATURE_FILE
    line = file.read_bytes()
    read_artifact(folder)
    for position in range(len(line) * 8):
        changed = bytearray(line)
        changed[position // 8] ^= 1 << position % 8
        file.write_bytes(changed)
        with pytest.raises(ArtifactUntrusted):
            read_artifact(folder)
    for other in (b"", line[:-1], line + b"\n", line * 2, line * 1000, b"\0" * 115):
        file.write_bytes(other)
        refusal(folder)


def test_another_model_under_a_signed_manifest(folder: Path, tmp_path: Path) -> None:
    """The signature stands for the model's bytes too, by their sha256 in the manifest."""
    public = keygen(tmp_path / "key")
    sign(folder, tmp_path / "key")
    content = bytearray((folder / MODEL_FILE).read_bytes())
    content[1000] ^= 1
    (folder / MODEL_FILE).write_bytes(content)
    trust(public)
    with pytest.raises(Exception, match="the manifest says"):
        read_artifact(folder)


def test_rotation(folder: Path, tmp_path: Path, shipped_folder: Callable[[str], Path]) -> None:
    """While keys change both are trusted; afterwards the old one's artifacts are refused."""
    old, new = keygen(tmp_path / "old"), keygen(tmp_path / "new")
    other = shutil.copytree(shipped_folder("viewcount"), tmp_path / "viewcount")
    sign(folder, tmp_path / "old")
    sign(other, tmp_path / "new")
    trust(old, new)
    assert (read_artifact(folder)[0].model, read_artifact(other)[0].model) == ("molecule", "viewcount")
    trust(new)
    assert read_artifact(other)[0].model == "viewcount"
    refusal(folder)


def test_the_signature_survives_installing(folder: Path, tmp_path: Path, store: Path) -> None:
    """It lies beside the manifest in the store; an unsigned copy does not take it away, a newer one replaces it."""
    old, new = keygen(tmp_path / "old"), keygen(tmp_path / "new")
    unsigned = shutil.copytree(folder, tmp_path / "unsigned")
    manifest, _ = install(folder)
    sign(folder, tmp_path / "old")
    assert install(folder) == (manifest, True)
    assert install(folder) == (manifest, False)
    assert install(unsigned) == (manifest, False)
    stored = Path(bentoml.models.get(manifest.tag).path)
    trust(old)
    assert read_artifact(stored)[0] == manifest
    trust_only({})
    sign(folder, tmp_path / "new")
    assert install(folder) == (manifest, True)
    trust(new)
    assert read_artifact(stored)[0] == manifest
    assert sorted(path.name for path in stored.iterdir()) == [MANIFEST_FILE, SIGNATURE_FILE, MODEL_FILE, "model.yaml"]


def test_the_service_asks_for_signatures(
    folder: Path, tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With LECTERN_TRUSTED_KEYS the catalogue finds only signed models, and this process opens no others later."""
    public = keygen(tmp_path / "key")
    (tmp_path / "key.pub").write_text(public + "\n")
    install(folder)
    monkeypatch.setenv("LECTERN_TRUSTED_KEYS", f"{tmp_path / 'key.pub'}")
    settings.cache_clear()
    with pytest.raises(ArtifactUntrusted, match="not signed"):
        find_models(["molecule"])
    sign_in_another_process(folder, tmp_path / "key")
    refused = shutil.copytree(folder, tmp_path / "later", ignore=shutil.ignore_patterns(SIGNATURE_FILE))
    install(folder)
    (served,) = find_models(["molecule"])
    assert open_artifact(served.folder).manifest == served.manifest
    with pytest.raises(ArtifactUntrusted):
        open_artifact(refused)


def sign_in_another_process(folder: Path, key: Path) -> None:
    """The one that signs trusts nobody."""
    from models.artifact import signature

    trusted = signature._trusted
    trust_only({})
    sign(folder, key)
    trust_only(trusted)


def public_pem(key: Any) -> bytes:
    found: bytes = key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return found


def test_a_public_key_as_pem(folder: Path, tmp_path: Path) -> None:
    """As ``openssl pkey -pubout`` writes it."""
    keygen(tmp_path / "key")
    sign(folder, tmp_path / "key")
    private = serialization.load_pem_private_key((tmp_path / "key").read_bytes(), None)
    (tmp_path / "key.pem").write_bytes(public_pem(private))
    trust(str(tmp_path / "key.pem"))
    assert read_artifact(folder)[0].model == "molecule"


@pytest.mark.parametrize("entry", ["", "nonsense", "no/such/file", "QUJD", "A" * 44, "ä", "\0"])
def test_no_key(entry: str) -> None:
    """An entry that is no key is one line, which does not repeat it."""
    with pytest.raises(DataError, match=r"^trusted key 2: found none, expected a public Ed25519 key") as caught:
        read_keys([base64.b64encode(bytes(32)).decode(), entry])
    assert not entry or entry not in str(caught.value)


def test_no_keys_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting of commas is not the same as no setting: nobody is trusted by mistake."""
    monkeypatch.setenv("LECTERN_TRUSTED_KEYS", " , ")
    settings.cache_clear()
    with pytest.raises(DataError, match="expected at least one"):
        find_models([])


def test_a_file_with_another_kind_of_key(tmp_path: Path) -> None:
    """A private key, or one of another scheme, is nothing to trust."""
    keygen(tmp_path / "private")
    (tmp_path / "other.pem").write_bytes(public_pem(generate_private_key(SECP256R1())))
    for name in ("private", "other.pem"):
        with pytest.raises(DataError, match="trusted key 1"):
            read_keys([str(tmp_path / name)])


def test_the_private_key_is_its_owners(tmp_path: Path) -> None:
    """No one else may read it, and no key is ever overwritten."""
    keygen(tmp_path / "key")
    content = (tmp_path / "key").read_bytes()
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    again = ask("keygen", tmp_path / "key")
    assert (again.exit_code, again.output.count("\n")) == (1, 1)
    assert (tmp_path / "key").read_bytes() == content


def test_a_passphrase(folder: Path, tmp_path: Path) -> None:
    """An encrypted key signs with its passphrase only."""
    made = ask("keygen", tmp_path / "key", "--encrypt", typed="correct horse\ncorrect horse\n")
    assert made.exit_code == 0
    assert b"ENCRYPTED" in (tmp_path / "key").read_bytes()
    wrong = ask("sign", folder, "--key", tmp_path / "key", typed="battery\n")
    assert wrong.exit_code == 1
    assert "another passphrase" in wrong.output
    assert not (folder / SIGNATURE_FILE).exists()
    right = ask("sign", folder, "--key", tmp_path / "key", typed="correct horse\n")
    assert right.exit_code == 0
    trust(made.output.split("LECTERN_TRUSTED_KEYS=")[1].strip())
    assert read_artifact(folder)[0].model == "molecule"


def test_what_cannot_be_signed(folder: Path, tmp_path: Path) -> None:
    """A damaged artifact gets no signature; a file that is no key of this kind is one line."""
    keygen(tmp_path / "key")
    other = generate_private_key(SECP256R1())
    form = serialization.PrivateFormat.PKCS8
    (tmp_path / "other").write_bytes(other.private_bytes(PEM, form, serialization.NoEncryption()))
    (tmp_path / "public").write_bytes(public_pem(Ed25519PrivateKey.generate()))
    for name in ("other", "public", "absent"):
        done = ask("sign", folder, "--key", tmp_path / name)
        assert (done.exit_code, done.output.count("\n")) == (1, 1), done.output
    (folder / MODEL_FILE).write_bytes(b"")
    done = ask("sign", folder, "--key", tmp_path / "key")
    assert (done.exit_code, done.output.count("\n")) == (1, 1)
    assert not (folder / SIGNATURE_FILE).exists()
