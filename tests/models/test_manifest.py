"""The certificate: one flipped bit, a missing file or another card is refused with the reason."""

import hashlib
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest

from models.artifact.manifest import (
    ASSETS_KEY,
    MANIFEST_FILE,
    MODEL_FILE,
    Manifest,
    Tensor,
    check_tensors,
    from_bytes,
    read_artifact,
    to_bytes,
)
from models.errors import ArtifactError, ArtifactMismatch, ArtifactMissing, CardMismatch, DeviceError
from models.runtime.device import Compute, Device
from models.runtime.session import Session, open_artifact
from models.viewcount import FORECAST
from models.viewcount.schema import Assets

Find = Callable[[str], Path]


@pytest.fixture
def folder(tmp_path: Path, shipped_folder: Find) -> Path:
    """A copy of the smallest shipped artifact, to be damaged."""
    return shutil.copytree(shipped_folder("molecule"), tmp_path / "molecule")


@pytest.fixture
def views_folder(tmp_path: Path, shipped_folder: Find) -> Path:
    """A copy of the view-count artifact."""
    return shutil.copytree(shipped_folder("viewcount"), tmp_path / "viewcount")


@pytest.fixture
def manifest(shipped_folder: Find) -> Manifest:
    """The view-count certificate."""
    return read_artifact(shipped_folder("viewcount"))[0]


def certify_again(folder: Path, model: onnx.ModelProto | None = None, **changes: Any) -> None:
    """What a forger with the right tools does: change the artifact and write a digest that fits."""
    if model is not None:
        content = model.SerializeToString()
        (folder / MODEL_FILE).write_bytes(content)
        changes |= {"model_sha256": hashlib.sha256(content).hexdigest(), "model_bytes": len(content)}
    old = from_bytes((folder / MANIFEST_FILE).read_bytes(), folder)
    (folder / MANIFEST_FILE).write_bytes(to_bytes(msgspec.structs.replace(old, **changes)))


def test_round_trip(manifest: Manifest) -> None:
    """A manifest survives its bytes, which are canonical: sorted keys, one line end, a digest of all the rest."""
    content = to_bytes(manifest)
    assert from_bytes(content, "here") == manifest
    assert to_bytes(from_bytes(content, "here")) == content
    document = msgspec.json.decode(content)
    assert list(document) == sorted(document)
    assert content.endswith(b"}\n")
    hollow = content.replace(manifest.digest.encode(), b"")
    assert manifest.digest == hashlib.sha256(hollow).hexdigest()
    assert (manifest.tag, manifest.output_names) == ("viewcount:" + manifest.version, {"forecast", "lower", "upper"})


def test_names_that_are_no_text(manifest: Manifest) -> None:
    """A name of a file or a class that is not UTF-8 is written with a sign in its place, and can be read again."""
    odd = msgspec.structs.replace(manifest, model="caf\udce9")
    again = from_bytes(to_bytes(odd), "here")
    assert again.model == "caf\ufffd"
    assert to_bytes(again) == to_bytes(odd)


def test_every_change_changes_the_digest(manifest: Manifest) -> None:
    """Two certificates that differ in one field have other digests, whatever their digest fields say."""
    changed = msgspec.structs.replace(manifest, version="9.9.9")
    digests = {from_bytes(to_bytes(one), "").digest for one in (manifest, changed)}
    assert len(digests) == 2
    assert to_bytes(msgspec.structs.replace(manifest, digest="anything")) == to_bytes(manifest)


@pytest.mark.parametrize("name", ["viewcount", "tagging", "image", "image-vit", "citation", "molecule"])
def test_shipped_certificates_prove(name: str, shipped_folder: Find) -> None:
    """Every shipped certificate says: within tolerance, frozen, bit-identical in company, no label changed."""
    shipped, content = read_artifact(shipped_folder(name))
    proof = shipped.certificate
    assert (shipped.model, len(content)) == (name, shipped.model_bytes)
    assert proof.parity.max_abs_diff.keys() == shipped.output_names
    # Views reach ten million a day: there the relative part of the bound rules.
    assert max(proof.parity.max_abs_diff.values()) <= proof.parity.atol + proof.parity.rtol * (
        1e8 if name == "viewcount" else 1
    )
    assert proof.batch_invariance.bit_identical
    assert proof.batch_invariance.max_abs_diff == 0.0
    assert proof.batch_norm.training_nodes == proof.score.label_changes == 0
    is_normalised = name in ("image", "image-vit")
    assert (proof.batch_norm.layers > 0) == (proof.batch_norm.shift_if_unfrozen is not None) == is_normalised
    assert shipped.training.commit != "unknown"


@pytest.mark.parametrize("name", [MODEL_FILE, MANIFEST_FILE])
def test_flipped_bits(name: str, folder: Path) -> None:
    """Each of a hundred random single-bit flips, in either file, is refused with a reason that names the file."""
    open_artifact(folder)
    path, rng = folder / name, np.random.default_rng(42)
    whole = path.read_bytes()
    for _ in range(100):
        position, bit = int(rng.integers(len(whole))), int(rng.integers(8))
        damaged = bytearray(whole)
        damaged[position] ^= 1 << bit
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError) as caught:
            open_artifact(folder)
        assert str(caught.value).startswith(f"{path}: "), (position, bit)
        assert len(str(caught.value)) > len(str(path)) + 20
    path.write_bytes(whole)
    open_artifact(folder)


@pytest.mark.parametrize("name", [MODEL_FILE, MANIFEST_FILE])
@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[:-1],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole + b"\n",
        lambda whole: whole + b"\0",
        lambda whole: whole[::-1],
        lambda whole: b"\xff" * len(whole),
    ],
    ids=["empty", "last byte gone", "half", "line end more", "zero more", "reversed", "not text"],
)
def test_other_lengths(name: str, damage: Callable[[bytes], bytes], folder: Path) -> None:
    """Truncated, lengthened, emptied: refused as other bytes than the certificate's."""
    path = folder / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ArtifactMismatch, match=f"{name}: "):
        open_artifact(folder)


@pytest.mark.parametrize("name", [MODEL_FILE, MANIFEST_FILE])
def test_missing_files(name: str, folder: Path) -> None:
    """A missing file is named, and a folder in its place too."""
    (folder / name).unlink()
    with pytest.raises(ArtifactMissing) as caught:
        open_artifact(folder)
    assert str(caught.value) == f"{folder}: {name} cannot be read: No such file or directory"
    (folder / name).mkdir()
    with pytest.raises(ArtifactMissing, match="Is a directory"):
        open_artifact(folder)


def test_rewritten_manifest_without_its_digest(folder: Path) -> None:
    """A better score written by hand, in the right form, does not fit the digest; other layout neither."""
    path = folder / MANIFEST_FILE
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"seed": 0', b'"seed": 1'))
    assert path.read_bytes() != whole
    with pytest.raises(ArtifactMismatch, match=r"its bytes are not those its digest [0-9a-f]{12} was made of$"):
        open_artifact(folder)
    path.write_bytes(msgspec.json.encode(msgspec.json.decode(whole)))
    with pytest.raises(ArtifactMismatch, match="its bytes are not those its digest"):
        open_artifact(folder)


def test_swapped_models(folder: Path, shipped_folder: Find) -> None:
    """Another certified model under this manifest is refused with both digests."""
    other = (shipped_folder("viewcount") / MODEL_FILE).read_bytes()
    wanted = read_artifact(folder)[0].model_sha256
    (folder / MODEL_FILE).write_bytes(other)
    with pytest.raises(ArtifactMismatch) as caught:
        open_artifact(folder)
    found = hashlib.sha256(other).hexdigest()
    assert str(caught.value) == f"{folder / MODEL_FILE}: sha256 {found[:12]}, the manifest says {wanted[:12]}"


def test_other_format(folder: Path) -> None:
    """A manifest of a later format is refused by both numbers."""
    certify_again(folder, format=2)
    with pytest.raises(ArtifactMismatch, match=r": format 2, this code reads 1$"):
        open_artifact(folder)


def test_unknown_task(folder: Path) -> None:
    """A certificate for a task this code has not is refused with the known ones."""
    certify_again(folder, task="translate")
    with pytest.raises(CardMismatch, match=r"^no card for graph/translate; this code has viewcount/forecast, "):
        open_artifact(folder)


def outputs(*names: str) -> list[Tensor]:
    return [Tensor(name=name, dtype="float32", shape=["batch", 28]) for name in names]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"inputs": [Tensor(name="clicks", dtype="float32", shape=["batch", 56])]},
            "viewcount:1.0.0: input 'views' is on the card, not in the artifact",
        ),
        (
            {"inputs": [Tensor(name="views", dtype="float64", shape=["batch", 56])]},
            "input 'views' is float64 ['batch', 56], the card says float32 ['batch', 56]",
        ),
        (
            {"inputs": [Tensor(name="views", dtype="float32", shape=["batch", 28])]},
            "input 'views' is float32 ['batch', 28], the card says float32 ['batch', 56]",
        ),
        (
            {"inputs": [Tensor(name="views", dtype="float32", shape=["rows", 56])]},
            "input 'views' is float32 ['rows', 56], the card says float32 ['batch', 56]",
        ),
        (
            {"inputs": [Tensor(name="views", dtype="float32", shape=[1, 56])]},
            "input 'views' is float32 [1, 56], the card says float32 ['batch', 56]",
        ),
        (
            {"outputs": outputs("forecast", "lower", "upper", "zeta")},
            "viewcount:1.0.0: output 'zeta' is not on the card",
        ),
        (
            {"outputs": outputs("forecast", "lower")},
            "viewcount:1.0.0: output 'upper' is on the card, not in the artifact",
        ),
    ],
)
def test_card_mismatch(changes: dict[str, Any], message: str, manifest: Manifest, views_folder: Path) -> None:
    """Another name, type or axis, a tensor too many or too few: the tensor and both shapes are named."""
    same = msgspec.structs.replace(manifest, version="1.0.0")
    check_tensors(same, FORECAST, Assets())
    with pytest.raises(CardMismatch) as caught:
        check_tensors(msgspec.structs.replace(same, **changes), FORECAST, Assets())
    assert str(caught.value) == message
    certify_again(views_folder, version="1.0.0", **changes)
    with pytest.raises(CardMismatch) as caught:
        open_artifact(views_folder)
    assert str(caught.value) == message


def test_axes_follow_the_assets(manifest: Manifest) -> None:
    """A model with another window is another artifact."""
    with pytest.raises(CardMismatch, match=r"the card says float32 \['batch', 70\]$"):
        check_tensors(manifest, FORECAST, Assets(window=70))


def test_attention_is_optional_but_not_hidden(tmp_path: Path, shipped_folder: Find) -> None:
    """A manifest that keeps quiet about an output of its graph is refused."""
    folder = shutil.copytree(shipped_folder("image-vit"), tmp_path / "image-vit")
    found = read_artifact(folder)[0]
    certify_again(folder, outputs=[tensor for tensor in found.outputs if tensor.name != "attention"])
    with pytest.raises(CardMismatch) as caught:
        open_artifact(folder)
    assert str(caught.value) == f"{found.tag}: the ONNX graph's tensors are not the manifest's"


@pytest.mark.parametrize(
    ("assets", "reason"),
    [
        (None, "truncated"),
        ("", "truncated"),
        ("{", "truncated"),
        ("[1]", "Expected `object`"),
        ('{"window": "56"}', "Expected `int`"),
        # Of the image family's card: nothing of it is a view-count model's.
        ('{"classes": ["a", "b"], "channels": 1, "height": 28, "width": 28}', "unknown field"),
    ],
    ids=["missing", "empty", "cut", "list", "text", "image's"],
)
def test_assets_of_another_card(assets: str | None, reason: str, views_folder: Path) -> None:
    """An artifact without its codec's constants, or with another card's, is refused."""
    model = onnx.load_model(views_folder / MODEL_FILE)
    onnx.helper.set_model_props(model, {} if assets is None else {ASSETS_KEY: assets})
    certify_again(views_folder, model)
    with pytest.raises(CardMismatch, match=rf"^viewcount:[\d.]+: its assets are not viewcount/forecast's: .*{reason}"):
        open_artifact(views_folder)


def test_own_assets(views_folder: Path) -> None:
    """Control: the same surgery with the right assets opens and answers."""
    model = onnx.load_model(views_folder / MODEL_FILE)
    onnx.helper.set_model_props(model, {ASSETS_KEY: '{"window": 56, "horizon": 28, "coverage": 0.5}'})
    certify_again(views_folder, model)
    session = open_artifact(views_folder)
    assert session.assets == Assets(coverage=0.5)
    feeds = {"views": np.full((2, 56), 100, np.float32)}
    assert session.run(feeds, ["forecast"])["forecast"].shape == (2, 28)


def test_graph_of_another_type(views_folder: Path) -> None:
    """A graph in double precision under a manifest that says single is refused as an artifact."""
    value = onnx.helper.make_tensor_value_info
    double, names = onnx.TensorProto.DOUBLE, ("forecast", "lower", "upper")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Slice", ["views", "from", "to", "axis"], [name]) for name in names],
        "double",
        [value("views", double, ["batch", 56])],
        [value(name, double, ["batch", 28]) for name in names],
        [onnx.helper.make_tensor(n, 7, [1], [v]) for n, v in (("from", 0), ("to", 28), ("axis", 1))],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    onnx.helper.set_model_props(model, {ASSETS_KEY: "{}"})
    certify_again(views_folder, model)
    with pytest.raises(ArtifactError):
        open_artifact(views_folder)


def test_certified_rubbish(views_folder: Path) -> None:
    """Bytes that no engine reads, under a certificate that fits them, are refused as an artifact."""
    content = b"not a graph"
    (views_folder / MODEL_FILE).write_bytes(content)
    certify_again(views_folder, model_sha256=hashlib.sha256(content).hexdigest(), model_bytes=len(content))
    with pytest.raises(ArtifactError):
        open_artifact(views_folder)


def test_missing_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch, shipped_session: Callable[[str], Session]) -> None:
    """``cuda`` without a GPU is an error, ``auto`` and ``cpu`` run on the CPU, and say so."""
    monkeypatch.setattr("models.runtime.session.has_cuda", lambda: False)
    for device in (Device.CPU, Device.AUTO):
        assert open_artifact(folder, Compute(device=device)).provider == "CPUExecutionProvider"
    if shipped_session("molecule").engine.get_providers() == ["CPUExecutionProvider"] and not _cuda_loads(folder):
        with pytest.raises(
            DeviceError, match=r"^molecule:[\d.]+: LECTERN_DEVICE=cuda, but CUDAExecutionProvider does not"
        ):
            open_artifact(folder, Compute(device=Device.CUDA))


def _cuda_loads(folder: Path) -> bool:
    try:
        open_artifact(folder, Compute(device=Device.CUDA))
    except DeviceError:
        return False
    return True


def test_the_day_of_training(folder: Path) -> None:
    """It is in the certificate where the run said it; one without it keeps its bytes; what is no day is refused."""
    old = (folder / MANIFEST_FILE).read_bytes()
    assert b'"trained":' not in old.replace(b'"trained": {', b"")
    training = from_bytes(old, folder).training
    assert (training.trained, to_bytes(from_bytes(old, folder))) == (msgspec.UNSET, old)
    certify_again(folder, training=msgspec.structs.replace(training, trained=date(2026, 3, 4)))
    new = (folder / MANIFEST_FILE).read_bytes()
    assert b'"trained": "2026-03-04"' in new
    assert from_bytes(new, folder).training.trained == date(2026, 3, 4)
    with pytest.raises(ArtifactMismatch, match="trained"):
        from_bytes(new.replace(b"2026-03-04", b"2026-03-44"), folder)
