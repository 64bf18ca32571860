"""Certified artifacts into a BentoML model store of their own, and out of it again."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bentoml
import msgspec
import orjson
import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore
from click.testing import CliRunner

from export.__main__ import main
from export.store import install, shipped_folders
from models.artifact.manifest import MANIFEST_FILE, MODEL_FILE, from_bytes, read_artifact, to_bytes
from models.errors import ArtifactMismatch, ArtifactMissing
from models.runtime.session import open_artifact
from service.scoring.__main__ import main as score
from service.store.catalog import find_models, find_version, shipped_tags

Find = Callable[[str], Path]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty model store; the user's own is never touched."""
    position = tmp_path / "store" / "models"
    position.mkdir(parents=True)
    monkeypatch.setenv("BENTOML_HOME", str(position.parent))
    with BentoMLContainer.model_store.patch(ModelStore(position)):
        yield position


@pytest.fixture
def folder(tmp_path: Path, shipped_folder: Find) -> Path:
    """A copy of a shipped artifact, to be changed."""
    return shutil.copytree(shipped_folder("molecule"), tmp_path / "molecule")


def change(folder: Path, **changes: Any) -> None:
    """Certify an artifact again with another manifest."""
    manifest = from_bytes((folder / MANIFEST_FILE).read_bytes(), folder)
    (folder / MANIFEST_FILE).write_bytes(to_bytes(msgspec.structs.replace(manifest, **changes)))


def test_shipped_folders() -> None:
    """The six shipped models are found, in order of family and name."""
    shipped = ["citation", "molecule", "image", "image-vit", "tagging", "viewcount"]
    # A checkout may hold its owner's models too.
    assert [folder.name for folder in shipped_folders() if folder.name in shipped] == shipped


def test_install_twice(store: Path, folder: Path) -> None:
    """An artifact is installed under its version, byte for byte; a second time it is in the store."""
    manifest, is_new = install(folder)
    assert is_new
    stored = Path(bentoml.models.get(manifest.tag).path)
    assert store in stored.parents
    assert read_artifact(stored) == read_artifact(folder)
    assert bentoml.models.get(manifest.tag).info.metadata["digest"] == manifest.digest
    assert install(folder) == (manifest, False)


def change_bytes(folder: Path) -> None:
    """Another model under a certificate that fits it."""
    content = (folder / MODEL_FILE).read_bytes() + b"x"
    (folder / MODEL_FILE).write_bytes(content)
    change(folder, model_sha256=hashlib.sha256(content).hexdigest(), model_bytes=len(content))


def test_renewed_certificate(store: Path, folder: Path) -> None:
    """The same bytes with a newer certificate replace the old certificate: training again must not stop ``serve``."""
    install(folder)
    change(folder, summary="certified again")
    manifest, is_new = install(folder)
    assert is_new
    assert install(folder) == (manifest, False)
    assert read_artifact(Path(bentoml.models.get(manifest.tag).path)) == read_artifact(folder)
    assert len(bentoml.models.list()) == 1


def test_other_bytes_under_one_version(store: Path, folder: Path) -> None:
    """Other bytes under the same version are refused with the way out, and the store keeps the old."""
    manifest, _ = install(folder)
    change_bytes(folder)
    with pytest.raises(ArtifactMismatch) as caught:
        install(folder)
    assert str(caught.value) == (
        f"{manifest.tag} is in the model store with other bytes; export with a new version, "
        f"or delete it there: bentoml models delete {manifest.tag}"
    )
    assert read_artifact(Path(bentoml.models.get(manifest.tag).path))[0] == manifest
    change(folder, version="7.0.0")
    assert install(folder)[1]
    assert len(bentoml.models.list()) == 2


def test_damaged_artifacts_stay_out(store: Path, folder: Path) -> None:
    """An artifact with a changed byte, or without its manifest, is not installed."""
    content = bytearray((folder / MODEL_FILE).read_bytes())
    content[1000] ^= 1
    (folder / MODEL_FILE).write_bytes(content)
    with pytest.raises(ArtifactMismatch):
        install(folder)
    (folder / MANIFEST_FILE).unlink()
    with pytest.raises(ArtifactMissing):
        install(folder)
    assert bentoml.models.list() == []


def test_command_line(store: Path, folder: Path) -> None:
    """``install`` says what is new and what was there; a refusal is one line."""
    first = CliRunner().invoke(main, ["install", str(folder)])
    second = CliRunner().invoke(main, ["install", str(folder)])
    manifest = read_artifact(folder)[0]
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert first.output == f"installed  {manifest.tag:<20} {manifest.digest[:12]}\n"
    assert second.output == f"in store   {manifest.tag:<20} {manifest.digest[:12]}\n"
    change_bytes(folder)
    refused = CliRunner().invoke(main, ["install", str(folder)])
    assert (refused.exit_code, refused.output.count("\n")) == (1, 1)


def test_find_served_models(store: Path, folder: Path) -> None:
    """A bare name is the repository's version, or the latest of a model that only the store has."""
    tag = shipped_tags()["molecule"]
    with pytest.raises(ArtifactMissing) as caught:
        find_models(["molecule"])
    assert str(caught.value) == f"model {tag} is not in the model store; put it there: python -m export install"
    manifest, _ = install(folder)
    (served,) = find_models(["molecule"])
    assert (served.name, served.manifest) == ("molecule", manifest)
    assert open_artifact(served.folder).manifest == manifest
    change(folder, model="mine", version="3.0.0")
    install(folder)
    assert [model.manifest.tag for model in find_models(["mine", tag])] == ["mine:3.0.0", tag]
    with pytest.raises(ArtifactMissing, match="is not in the model store"):
        find_models([])


@pytest.mark.parametrize(
    "tag", ["../molecule:1", "molecule:../1", "molecule:", ":1", "molecule", "/etc:latest", "a:latest"]
)
def test_what_is_no_tag_is_no_path(tag: str, store: Path, folder: Path) -> None:
    """A tag that BentoML would not take finds nothing, wherever it points to."""
    install(folder)
    stored = find_models(["molecule"])[0].folder
    shutil.copytree(stored, store.parent / "molecule" / "1")
    shutil.copytree(stored, store / "1")
    with pytest.raises(ArtifactMissing):
        find_version(tag)
    assert find_version(f"{read_artifact(folder)[0].model}:latest").folder == stored


def test_two_versions_of_one_model(store: Path, folder: Path) -> None:
    """One model cannot be served in two versions at once."""
    first = install(folder)[0].tag
    change(folder, version="9.0.0")
    second = install(folder)[0].tag
    with pytest.raises(
        ArtifactMissing, match=r"^two versions of one model cannot be served at once: molecule, molecule$"
    ):
        find_models([first, second])
    assert find_models([second])[0].manifest.version == "9.0.0"


@pytest.mark.parametrize("tag", ["no-such-model", "molecule:9.9.9", "Not A Name", "a:b:c", ":", "../molecule"])
def test_no_such_model(tag: str, store: Path) -> None:
    """A name that the store does not have, or that is none, is one line."""
    with pytest.raises(ArtifactMissing, match="is not in the model store; put it there"):
        find_models([tag])


def test_never_certified(store: Path) -> None:
    """A model that someone else put into the store has no certificate and is not served."""
    with bentoml.models.create("stranger:1") as stored:
        (Path(stored.path) / "model.onnx").write_bytes(b"")
    with pytest.raises(ArtifactMissing, match=r"manifest\.json"):
        find_models(["stranger:1"])


def test_score_a_file(store: Path, folder: Path, tmp_path: Path) -> None:
    """A file is scored row by row by an installed model; OUT appears whole or not at all, and nothing else stays."""
    install(folder)
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(b'{"atoms": ["C", "C", "O"], "bonds": [[0, 1], [1, 2]]}\nnonsense\n{"atoms": ["C"]}\n')
    result = CliRunner().invoke(score, ["run", "molecule", str(source), str(target), "--workers", "1"])
    told = f"3 rows, 1 error rows: {target}\nrow 2: malformed_request: not JSON\n"
    assert (result.exit_code, result.output) == (0, told)
    rows = [orjson.loads(line) for line in target.read_bytes().splitlines()]
    assert [row.get("error_code") for row in rows] == [None, "malformed_request", None]
    assert rows[0]["prediction"].keys() == {"label", "class_id", "score", "scores"}
    missing = CliRunner().invoke(score, ["run", "no-such", str(source), str(tmp_path / "no.jsonl")])
    assert (missing.exit_code, missing.output.count("\n")) == (1, 1)
    assert sorted(path.name for path in tmp_path.glob("*.jsonl*")) == [
        "in.jsonl",
        "out.jsonl",
        "out.jsonl.manifest.json",
    ]
    assert not list(tmp_path.glob(".*"))
