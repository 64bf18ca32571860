"""Hostile artifacts: files that name other files, foreign operators, hidden graphs, flipped bytes, swapped files."""

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from export.operators import check_operators
from models.artifact.manifest import ASSETS_KEY, MANIFEST_FILE, MODEL_FILE, from_bytes, read_artifact, to_bytes
from models.artifact.onnx_allowlist import find_operators
from models.errors import ArtifactError, ArtifactMismatch, CertificateError
from models.runtime.session import open_artifact

FLOAT = TensorProto.FLOAT
OPSETS = [helper.make_opsetid("", 20)]
SECRET = np.linspace(1, 2, 28, dtype=np.float32)
VIEWS = {"views": np.full((1, 56), 100, np.float32)}
OUTPUTS = ("forecast", "lower", "upper")
PLACES = ["outside", "absolute", "symlink", "hardlink"]
KINDS = ["initializer", "constant", "sparse constant", "sparse initializer"]


def certify_again(folder: Path, model: onnx.ModelProto) -> None:
    """What a forger with the right tools does: another model, and a digest and a list of operators that fit."""
    content = model.SerializeToString()
    (folder / MODEL_FILE).write_bytes(content)
    old = from_bytes((folder / MANIFEST_FILE).read_bytes(), folder)
    operators = sorted({node.op_type for node in model.graph.node})
    proof = msgspec.structs.replace(old.certificate, operators=operators)
    sha256 = hashlib.sha256(content).hexdigest()
    forged = msgspec.structs.replace(old, certificate=proof, model_sha256=sha256, model_bytes=len(content))
    (folder / MANIFEST_FILE).write_bytes(to_bytes(forged))


def forecaster(nodes: list[Any], **graph: Any) -> onnx.ModelProto:
    """Return a model with the view-count card's tensors; ``nodes`` make ``secret``, which all answers are."""
    value = helper.make_tensor_value_info
    slices = [helper.make_node("Slice", ["views", "from", "to", "axis"], ["days"])]
    sums = [helper.make_node("Mul", ["days", "zero"], ["nothing"])]
    sums += [helper.make_node("Add", ["nothing", "secret"], [name]) for name in OUTPUTS]
    constants = [helper.make_tensor(n, 7, [1], [v]) for n, v in (("from", 0), ("to", 28), ("axis", 1))]
    made = helper.make_graph(
        [*slices, *nodes, *sums], "forecaster", [value("views", FLOAT, ["batch", 56])],
        [value(name, FLOAT, ["batch", 28]) for name in OUTPUTS],
        [*constants, helper.make_tensor("zero", FLOAT, [1], [0.0]), *graph.pop("initializer", [])], **graph,
    )  # fmt: skip
    model = helper.make_model(made, opset_imports=OPSETS, ir_version=10)
    helper.set_model_props(model, {ASSETS_KEY: "{}"})
    return model


def outside(location: str, *, is_sparse: bool) -> Any:
    """Return a tensor whose numbers are in another file."""
    tensor = TensorProto(name="secret", data_type=FLOAT, dims=[28], raw_data=SECRET.tobytes())
    onnx.external_data_helper.set_external_data(tensor, location, length=SECRET.nbytes)
    tensor.ClearField("raw_data")
    if not is_sparse:
        return tensor
    return helper.make_sparse_tensor(tensor, helper.make_tensor("i", 7, [28], [*range(28)]), [28])


def hostile(kind: str, location: str) -> onnx.ModelProto:
    """Return a model that asks for another file's content, in one of four ways."""
    tensor = outside(location, is_sparse=kind.startswith("sparse"))
    if kind == "initializer":
        return forecaster([], initializer=[tensor])
    if kind == "sparse initializer":
        return forecaster([], sparse_initializer=[tensor])
    name = "value" if kind == "constant" else "sparse_value"
    return forecaster([helper.make_node("Constant", [], ["secret"], **{name: tensor})])


@pytest.fixture
def folder(tmp_path: Path, shipped_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of an artifact, which is where we are, and a secret beside it."""
    found = shutil.copytree(shipped_folder("viewcount"), tmp_path / "viewcount")
    (tmp_path / "secret.bin").write_bytes(SECRET.tobytes())
    (found / "soft.bin").symlink_to(tmp_path / "secret.bin")
    os.link(tmp_path / "secret.bin", found / "hard.bin")
    monkeypatch.chdir(found)
    return found


def locations(folder: Path) -> dict[str, str]:
    absolute = str(folder.parent / "secret.bin")
    return dict(zip(PLACES, ("../secret.bin", absolute, "soft.bin", "hard.bin"), strict=True))


def leaks(model: "str | bytes") -> bool:
    """Return whether the engine opens it and answers with the secret."""
    try:
        engine = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
        return any(np.array_equal(values[0], SECRET) for values in engine.run(None, VIEWS))
    except Exception:  # onnxruntime raises a dozen unrelated classes
        return False


@pytest.mark.parametrize("position", PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_other_files_are_never_read(kind: str, position: str, folder: Path) -> None:
    """However a file asks for another one's content, export refuses it, and so does the service."""
    model = hostile(kind, locations(folder)[position])
    with pytest.raises(CertificateError, match=r"^weights lie outside the file$"):
        check_operators(model, 1)
    certify_again(folder, model)
    with pytest.raises(ArtifactMismatch, match=r": (a tensor's numbers lie outside|sparse tensors are not allowed)"):
        open_artifact(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_the_engine_would_leak(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: the engine alone reads another name of the secret, by path, and from bytes in the working directory."""
    model = hostile(kind, "hard.bin")
    content = model.SerializeToString()
    Path("by_path.onnx").write_bytes(content)
    assert leaks(str(folder / "by_path.onnx"))
    assert leaks(content)
    monkeypatch.chdir("/")
    assert not leaks(content)


def test_what_is_inside_is_no_leak(folder: Path) -> None:
    """Control: the same numbers in the file itself are opened, and are the answer."""
    inside = helper.make_tensor("secret", FLOAT, [28], SECRET)
    assert leaks(forecaster([], initializer=[inside]).SerializeToString())
    certify_again(folder, forecaster([], initializer=[inside]))
    assert np.array_equal(open_artifact(folder).run(VIEWS, ["forecast"])["forecast"][0], SECRET)


def body(*nodes: Any) -> onnx.GraphProto:
    return helper.make_graph([*nodes], "body", [], [helper.make_tensor_value_info("inner", FLOAT, [28])])


RANDOM = helper.make_node("RandomUniform", [], ["inner"], shape=[28])
ON = helper.make_tensor("on", TensorProto.BOOL, [], [True])
NODES: dict[str, tuple[Any, str]] = {
    "foreign domain": (helper.make_node("Gelu", ["days"], ["secret"], domain="com.microsoft"), "domain"),
    "own domain": (helper.make_node("Gelu", ["days"], ["secret"], domain="local"), "domain"),
    "random": (helper.make_node("RandomUniform", [], ["secret"], shape=[28]), "'RandomUniform' is not on"),
    "dynamic": (helper.make_node("DynamicQuantizeLinear", ["days"], ["secret"]), "is not on the allow-list"),
    "if": (helper.make_node("If", ["on"], ["secret"], then_branch=body(RANDOM), else_branch=body(RANDOM)), "not"),
    "loop": (helper.make_node("Loop", ["", "on"], ["secret"], body=body(RANDOM)), "not"),
    "scan": (helper.make_node("Scan", ["days"], ["secret"], body=body(RANDOM), num_scan_inputs=1), "not"),
    "graph in a known operator": (helper.make_node("Relu", ["days"], ["secret"], hidden=body(RANDOM)), "subgraphs"),
    "graphs in a known operator": (helper.make_node("Relu", ["days"], ["secret"], hidden=[body(RANDOM)]), "subgraphs"),
}  # fmt: skip


@pytest.mark.parametrize("name", NODES)
def test_foreign_operators(name: str, folder: Path) -> None:
    """What is not on the list is refused by export and by the service, in a subgraph too."""
    node, reason = NODES[name]
    model = forecaster([node], initializer=[ON])
    with pytest.raises(CertificateError):
        check_operators(model, 1)
    certify_again(folder, model)
    with pytest.raises(ArtifactMismatch, match=reason):
        open_artifact(folder)


def test_functions(folder: Path) -> None:
    """A function of the file's own is refused, called or not."""
    model = forecaster([helper.make_node("Relu", ["days"], ["secret"])])
    function = helper.make_function("local", "Own", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])], OPSETS)
    model.functions.append(function)
    certify_again(folder, model)
    with pytest.raises(ArtifactMismatch, match="functions and training graphs are not allowed"):
        open_artifact(folder)


def test_operators_the_certificate_does_not_know(folder: Path) -> None:
    """A model with other operators than its certificate lists is refused, though each of them is allowed."""
    inside = helper.make_tensor("days_too", FLOAT, [28], SECRET)
    model = forecaster([helper.make_node("Relu", ["days_too"], ["secret"])], initializer=[inside])
    certify_again(folder, model)
    open_artifact(folder)
    old = from_bytes((folder / MANIFEST_FILE).read_bytes(), folder)
    proof = msgspec.structs.replace(old.certificate, operators=["Add", "Mul", "Slice"])
    (folder / MANIFEST_FILE).write_bytes(to_bytes(msgspec.structs.replace(old, certificate=proof)))
    with pytest.raises(ArtifactMismatch, match="the ONNX graph's operators are not the manifest's"):
        open_artifact(folder)


@pytest.mark.parametrize("name", ["viewcount", "tagging", "image", "image-vit", "citation", "molecule"])
def test_reader_is_onnx_s(name: str, shipped_folder: Callable[[str], Path]) -> None:
    """The byte reader finds the operators that the ``onnx`` package finds."""
    content = read_artifact(shipped_folder(name))[1]
    assert find_operators(content) == sorted({node.op_type for node in onnx.load_from_string(content).graph.node})


# Of each file; a thousand were tried once: python -m pytest tests/export/test_hostile.py -k 1000 -m slow
@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [MODEL_FILE, MANIFEST_FILE])
def test_changed_bytes(name: str, count: int, folder: Path) -> None:
    """Each of the random changes of a byte, and each cut, is refused as a mismatch; none reaches the engine."""
    path, rng = folder / name, np.random.default_rng(count)
    whole = path.read_bytes()
    for _ in range(count):
        position = int(rng.integers(len(whole)))
        flipped = bytearray(whole)
        flipped[position] ^= int(rng.integers(1, 256))
        for damaged in (flipped, whole[:position]):
            path.write_bytes(damaged)
            with pytest.raises(ArtifactMismatch):
                read_artifact(folder)
    path.write_bytes(whole)
    assert open_artifact(folder).manifest.model == "viewcount"


def test_reader_never_fails_otherwise() -> None:
    """Whatever bytes there are, the reader says what they hold or that they are no ONNX file."""
    rng = np.random.default_rng(0)
    whole = bytearray(forecaster([helper.make_node("Relu", ["days"], ["secret"])]).SerializeToString())
    for _ in range(2000):
        damaged = whole.copy()
        for position in rng.integers(0, len(whole), rng.integers(1, 4)):
            damaged[position] = rng.integers(256)
        with suppress(ArtifactMismatch):
            find_operators(bytes(damaged[: rng.integers(1, len(whole) + 1)]))


def test_swapped_after_hashing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file is read once: what is written after that is not what is opened."""
    inside = helper.make_tensor("secret", FLOAT, [28], SECRET)
    evil = forecaster([], initializer=[inside]).SerializeToString()
    seen: list[str] = []
    read = Path.read_bytes

    def read_then_swap(path: Path) -> bytes:
        content = read(path)
        if path.parent == folder:
            seen.append(path.name)
            path.write_bytes(evil)
        return content

    expected = open_artifact(folder).run(VIEWS, ["forecast"])["forecast"]
    monkeypatch.setattr(Path, "read_bytes", read_then_swap)
    found = open_artifact(folder).run(VIEWS, ["forecast"])["forecast"]
    assert sorted(seen) == [MANIFEST_FILE, MODEL_FILE]
    assert np.array_equal(found, expected)
    monkeypatch.undo()
    with pytest.raises(ArtifactError):
        open_artifact(folder)
