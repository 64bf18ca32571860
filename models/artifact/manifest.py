"""The certificate: what export writes and the service checks. Torch-free.

``manifest.json`` is canonical JSON with its own digest inside, so one flipped bit anywhere in it is found; it names
the sha256 of ``model.onnx``, so one flipped bit there is found too. Against somebody who writes both anew there are
signatures: ``models/artifact/signature.py``.
"""

import hashlib
import json
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from models.artifact.device_certificate import DevicePlacement
from models.artifact.drift_profile import Profile
from models.artifact.signature import check_signature
from models.card import AnyCard, Assets, TensorSpec
from models.errors import ArtifactMismatch, ArtifactMissing, CardMismatch, printable

FORMAT = 1
MODEL_FILE = "model.onnx"
MANIFEST_FILE = "manifest.json"
ASSETS_KEY = "lectern.assets"


class Tensor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input or output of the ONNX graph; dynamic axes by name."""

    name: str
    dtype: str
    shape: list[str | int]


class Parity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """ONNX Runtime against torch on random requests of many sizes."""

    atol: float
    rtol: float
    reason: str
    batches: list[int]
    instances: int
    max_abs_diff: dict[str, float]


class BatchNorm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Proof that normalisation uses frozen running statistics.

    Attributes:
        layers: Batch-norm layers of the torch net.
        statistics_sha256: Of every running mean and variance, in order.
        training_nodes: Nodes of the ONNX graph in training mode; always 0.
        shift_if_unfrozen: Largest output difference that train mode would have made on the check's batch: what the
            check would have seen. ``None`` without batch norm.
    """

    layers: int
    statistics_sha256: str | None
    training_nodes: int
    shift_if_unfrozen: float | None


class BatchInvariance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every request alone against in company, on the CPU provider."""

    requests: int
    companies: int
    bit_identical: bool
    max_abs_diff: float


class CertifiedScore(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The test set through torch and through the artifact, by the same codec.

    Attributes:
        measured_on: The fields of the requests that were sent; unset in artifacts from before it was written down.
    """

    metric: str
    unit: str
    instances: int
    torch: float
    onnx: float
    label_changes: int
    measured_on: str | UnsetType = UNSET


class Certificate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything export proved.

    Attributes:
        other_scores: Of the same test set asked for by other fields, where the model takes them and does otherwise.
    """

    parity: Parity
    batch_norm: BatchNorm
    batch_invariance: BatchInvariance
    operators: list[str]
    score: CertifiedScore
    other_scores: list[CertifiedScore] | UnsetType = UNSET


class Training(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Describe where the weights come from.

    Attributes:
        trained: The day the run ended, UTC; unset in artifacts from before it was written down.
    """

    recipe: dict[str, Any]
    seed: int
    epochs: int
    seconds: float
    parameters: int
    scores: dict[str, float]
    report: dict[str, Any]
    data: dict[str, Any]
    versions: dict[str, str]
    commit: str
    trained: date | UnsetType = UNSET


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The certificate of one artifact."""

    format: int
    family: str
    task: str
    model: str
    version: str
    summary: str
    opset: int
    model_sha256: str
    model_bytes: int
    intra_op_num_threads: int
    inputs: list[Tensor]
    outputs: list[Tensor]
    certificate: Certificate
    training: Training
    profile: Profile | None = None
    device: DevicePlacement | None = None
    digest: str = ""

    @property
    def tag(self) -> str:
        """``name:version``, as in the model store and in answers."""
        return f"{self.model}:{self.version}"

    @property
    def output_names(self) -> frozenset[str]:
        """Names of the graph's outputs."""
        return frozenset(tensor.name for tensor in self.outputs)


def to_bytes(manifest: Manifest) -> bytes:
    """Canonical JSON with the digest filled in."""
    document = msgspec.to_builtins(manifest)
    for field in ("profile", "device"):
        if document[field] is None:
            del document[field]  # artifacts from before there were such things keep their bytes
    document["digest"] = ""
    document["digest"] = hashlib.sha256(_canonical(document)).hexdigest()
    return _canonical(document)


def from_bytes(content: bytes, artifact_folder: Path | str) -> Manifest:
    """Read a manifest and prove that not one bit differs from what export wrote.

    Raises:
        ArtifactMismatch: If it does not parse, is not canonical, or its digest is another.
    """
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ArtifactMismatch(f"{artifact_folder}: not a manifest of format {FORMAT}: {error}") from error
    if manifest.format != FORMAT:
        raise ArtifactMismatch(f"{artifact_folder}: format {manifest.format}, this code reads {FORMAT}")
    if to_bytes(manifest) != content:
        raise ArtifactMismatch(
            f"{artifact_folder}: its bytes are not those its digest {manifest.digest[:12]} was made of"
        )
    return manifest


def _canonical(document: Any) -> bytes:
    # Names of data and of classes may be no UTF-8, where they are those of files: a sign stands in place of that.
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    return printable(text).encode()


def read_artifact(folder: Path) -> tuple[Manifest, bytes]:
    """Return the manifest and the model's bytes, proven to belong together.

    Raises:
        ArtifactMissing: If either file is not there.
        ArtifactMismatch: If one bit of either differs from what export wrote.
        ArtifactUntrusted: If this process trusts only certain keys, and none of them signed the manifest.
    """
    contents = {}
    for name in (MANIFEST_FILE, MODEL_FILE):
        try:
            contents[name] = (folder / name).read_bytes()
        except OSError as error:
            raise ArtifactMissing(f"{folder}: {name} cannot be read: {error.strerror}") from error
    check_signature(contents[MANIFEST_FILE], folder)
    manifest = from_bytes(contents[MANIFEST_FILE], folder / MANIFEST_FILE)
    found = hashlib.sha256(contents[MODEL_FILE]).hexdigest()
    if found != manifest.model_sha256:
        raise ArtifactMismatch(
            f"{folder / MODEL_FILE}: sha256 {found[:12]}, the manifest says {manifest.model_sha256[:12]}"
        )
    return manifest, contents[MODEL_FILE]


def check_tensors(manifest: Manifest, card: AnyCard, assets: Assets) -> None:
    """Compare the artifact's tensors with the card's.

    Raises:
        CardMismatch: Naming the tensor and both shapes.
    """
    for kind, found, specs in (
        ("input", manifest.inputs, card.inputs),
        ("output", manifest.outputs, card.outputs),
    ):
        tensors = {tensor.name: tensor for tensor in found}
        for spec in specs:
            if spec.name in tensors:
                _check_tensor(kind, tensors.pop(spec.name), spec, assets)
            elif not spec.is_attention:
                raise CardMismatch(f"{manifest.tag}: {kind} {spec.name!r} is on the card, not in the artifact")
        if tensors:
            raise CardMismatch(f"{manifest.tag}: {kind} {min(tensors)!r} is not on the card")


def _check_tensor(kind: str, tensor: Tensor, spec: TensorSpec, assets: Assets) -> None:
    wanted = spec.shape(assets.sizes)
    if (tensor.dtype, tensor.shape) != (spec.dtype, wanted):
        raise CardMismatch(
            f"{kind} {spec.name!r} is {tensor.dtype} {tensor.shape}, the card says {spec.dtype} {wanted}"
        )
