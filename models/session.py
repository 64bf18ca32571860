"""Open, verify and warm up an ONNX session. Torch-free."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
import onnxruntime as ort

from models.errors import ArtifactMismatch, CardMismatch, DeviceError, RunnerFailed
from models.family import AnyCard, Array, Assets, Feeds
from models.manifest import ASSETS_KEY, Manifest, Tensor, check_tensors, read_artifact
from models.operators import find_operators
from models.profile import check_profile
from models.registry import find_card

ORT_DTYPES = {
    "tensor(float)": "float32",
    "tensor(uint8)": "uint8",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}
CPU_PROVIDER, CUDA_PROVIDER = "CPUExecutionProvider", "CUDAExecutionProvider"
CUDA_OPTIONS = {
    # TF32 would differ from torch by 1e-3; an exhaustive search would tune at every new shape; see onnx.md, CUDA.
    "use_tf32": "0",
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",
    "do_copy_in_default_stream": "1",
}

# Where numpy's own allocations begin.
ALIGNMENT_BYTES = 16


class Device(StrEnum):
    """Where sessions run: ``AUTO`` takes the GPU when its provider really loads."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A certified artifact, open.

    Attributes:
        manifest: Its certificate.
        card: What it promises.
        assets: What its codec needs.
        provider: The execution provider in use, as the session itself reports it.
    """

    manifest: Manifest
    card: AnyCard
    assets: Assets
    provider: str
    engine: ort.InferenceSession

    def run(self, feeds: Feeds, outputs: list[str]) -> dict[str, Array]:
        """Outputs by name; thread-safe, and releases the interpreter while it computes.

        Raises:
            RunnerFailed: If the engine refuses the feeds.
        """
        try:
            found = self.engine.run(outputs, {name: _aligned(feed) for name, feed in feeds.items()})
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            raise RunnerFailed(f"{self.manifest.tag} failed on a micro-batch") from error
        return dict(zip(outputs, found, strict=True))


def _aligned(feed: Array) -> Array:
    """The same array at an address a vector register can be loaded from; unpickled arrays may lie anywhere.

    ONNX Runtime's mean over a row that begins elsewhere sums in another order: one unit in the last place (measured).
    """
    return feed if feed.ctypes.data % ALIGNMENT_BYTES == 0 else feed.copy()


def open_artifact(folder: Path, device: Device = Device.CPU) -> Session:
    """Open an artifact from verified bytes.

    Raises:
        ArtifactMissing: If a file is not there.
        ArtifactMismatch: If one bit differs from what export wrote.
        CardMismatch: If it promises other tensors than the card.
        DeviceError: If ``device`` is ``CUDA`` and the provider does not load.
    """
    manifest, model = read_artifact(folder)
    return open_model(manifest, model, device)


def open_model(manifest: Manifest, model: bytes, device: Device) -> Session:
    """Open a model whose bytes the caller has verified; raises as ``open_artifact``."""
    card = find_card(manifest.family, manifest.task)
    _check_operators(manifest, model)
    try:
        engine = _engine(model, manifest, device)
    except DeviceError:
        raise
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        raise ArtifactMismatch(f"{manifest.tag}: ONNX Runtime cannot open it") from error
    assets = read_assets(engine, card, manifest)
    check_tensors(manifest, card, assets)
    if manifest.profile is not None:
        check_profile(manifest.profile, card, assets, manifest.tag)
    _check_graph(engine, manifest)
    return Session(manifest=manifest, card=card, assets=assets, provider=engine.get_providers()[0], engine=engine)


def read_assets(engine: ort.InferenceSession, card: AnyCard, manifest: Manifest) -> Assets:
    """The codec's constants, which travel inside the ONNX file.

    Raises:
        CardMismatch: If they are missing or not of the card's type.
    """
    text = engine.get_modelmeta().custom_metadata_map.get(ASSETS_KEY, "")
    try:
        assets: Assets = msgspec.json.decode(text, type=card.assets)
    except msgspec.MsgspecError as error:
        raise CardMismatch(f"{manifest.tag}: its assets are not {card.family}/{card.task}'s: {error}") from error
    return assets


def describe(tensors: list[Any]) -> list[Tensor]:
    """Names, numpy types and axes of a session's inputs or outputs."""
    return [Tensor(name=t.name, dtype=ORT_DTYPES.get(t.type, t.type), shape=list(t.shape)) for t in tensors]


def _engine(model: bytes, manifest: Manifest, device: Device) -> ort.InferenceSession:
    options = ort.SessionOptions()
    # One thread a call: fastest for many callers, and the only safe setting for scatter sums (onnx.md, 3 and 6).
    options.intra_op_num_threads = manifest.intra_op_num_threads
    options.inter_op_num_threads = 1
    # The fused kernel is slower than what it replaces on a CPU: 0.80 against 0.71 ms for a tagger.
    options.add_session_config_entry("optimization.disable_specified_optimizers", "SkipLayerNormFusion")
    # It would write past our log, in colours and once per failure; the exception says the same.
    options.log_severity_level = 4
    if device is Device.CPU or (device is Device.AUTO and not has_cuda()):
        return ort.InferenceSession(model, options, providers=[CPU_PROVIDER])
    engine = ort.InferenceSession(model, options, providers=[(CUDA_PROVIDER, CUDA_OPTIONS), CPU_PROVIDER])
    if engine.get_providers()[0] != CUDA_PROVIDER and device is Device.CUDA:
        raise DeviceError(
            f"{manifest.tag}: LECTERN_DEVICE=cuda, but {CUDA_PROVIDER} does not load here; "
            "install the 'cuda' group on a machine with an NVIDIA driver, or use LECTERN_DEVICE=cpu"
        )
    return engine


def has_cuda() -> bool:
    """Whether an NVIDIA device is there; the wheel's own list of providers says yes on every machine."""
    return Path("/proc/driver/nvidia/gpus").is_dir() or Path("/dev/nvidiactl").exists()


def _check_operators(manifest: Manifest, model: bytes) -> None:
    """Before the engine sees the file: nothing in it that export would have refused, or did not see."""
    try:
        found = find_operators(model)
    except ArtifactMismatch as error:
        raise ArtifactMismatch(f"{manifest.tag}: {error}") from error
    if found != manifest.certificate.operators:
        raise ArtifactMismatch(f"{manifest.tag}: the ONNX graph's operators are not the manifest's")


def _check_graph(engine: ort.InferenceSession, manifest: Manifest) -> None:
    found = describe(engine.get_inputs()), describe(engine.get_outputs())
    if found != (manifest.inputs, manifest.outputs):
        raise CardMismatch(f"{manifest.tag}: the ONNX graph's tensors are not the manifest's")
