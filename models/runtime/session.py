"""Open, verify and warm up an ONNX session. Torch-free."""

from collections import Counter
from collections.abc import Iterable
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import onnxruntime as ort

from models.artifact.drift_profile import check_profile
from models.artifact.manifest import ASSETS_KEY, Manifest, Tensor, check_tensors, read_artifact
from models.artifact.onnx_allowlist import find_operators, find_size_nodes
from models.card import AnyCard, Array, Assets, Feeds
from models.errors import ArtifactMismatch, CardMismatch, DeviceError, RunnerFailed
from models.registry import find_card
from models.runtime.device import CPU_PROVIDER, CUDA_PROVIDER, ON_CPU, Compute, Device, has_cuda, provider_options
from models.runtime.padding import Bucketing

ORT_DTYPES = {
    "tensor(float)": "float32",
    "tensor(uint8)": "uint8",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}
_RECORD = "session.record_ep_graph_assignment_info"
# Where numpy's own allocations begin.
ALIGNMENT_BYTES = 16


class Node(NamedTuple):
    """A node of the graph as the engine computes it, and where."""

    name: str
    operator: str
    provider: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A certified artifact, open.

    Attributes:
        manifest: Its certificate.
        card: What it promises.
        assets: What its codec needs.
        provider: The execution provider in use, as the session itself reports it.
        fitting: Looks at feeds before a GPU gets them, and fills batches up where that is wanted; else ``None``.
    """

    manifest: Manifest
    card: AnyCard
    assets: Assets
    provider: str
    engine: ort.InferenceSession
    fitting: Bucketing | None = None

    def run(self, feeds: Feeds, outputs: list[str]) -> dict[str, Array]:
        """Outputs by name; thread-safe, and releases the interpreter while it computes.

        Raises:
            RunnerFailed: If the engine refuses the feeds, or an index in them is outside its table.
        """
        if self.fitting is not None:
            feeds, sizes = self.fitting.fit(feeds)
            found = self._compute(feeds, outputs)
            return found if sizes is None else self.fitting.cut(found, sizes)
        return self._compute(feeds, outputs)

    def _compute(self, feeds: Feeds, outputs: list[str]) -> dict[str, Array]:
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


def open_artifact(folder: Path, compute: Compute = ON_CPU) -> Session:
    """Open an artifact from verified bytes.

    Raises:
        ArtifactMissing: If a file is not there.
        ArtifactMismatch: If one bit differs from what export wrote.
        CardMismatch: If it promises other tensors than the card.
        DeviceError: If a GPU is demanded and the provider does not load, or leaves operators to the CPU unallowed.
    """
    manifest, model = read_artifact(folder)
    return open_model(manifest, model, compute)


def open_model(manifest: Manifest, model: bytes, compute: Compute = ON_CPU) -> Session:
    """Open a model whose bytes the caller has verified; raises as ``open_artifact``."""
    card = find_card(manifest.family, manifest.task)
    _check_operators(manifest, model)
    try:
        engine = _engine(model, manifest, compute)
    except DeviceError:
        raise
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        raise ArtifactMismatch(f"{manifest.tag}: ONNX Runtime cannot open it") from error
    assets = read_assets(engine, card, manifest)
    check_tensors(manifest, card, assets)
    if manifest.profile is not None:
        check_profile(manifest.profile, card, assets, manifest.tag)
    _check_graph(engine, manifest)
    provider = engine.get_providers()[0]
    is_padded = compute.pads(provider)
    fitting = Bucketing(card, assets, is_padded=is_padded) if is_padded or provider != CPU_PROVIDER else None
    return Session(manifest=manifest, card=card, assets=assets, provider=provider, engine=engine, fitting=fitting)


def read_assets(engine: ort.InferenceSession, card: AnyCard, manifest: Manifest) -> Assets:
    """Return the codec's constants, which travel inside the ONNX file.

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


def _engine(model: bytes, manifest: Manifest, compute: Compute) -> ort.InferenceSession:
    options = _options(manifest)
    if compute.device is Device.CPU or (compute.device is Device.AUTO and not has_cuda()):
        options.add_session_config_entry(_RECORD, str(int(compute.records_nodes)))
        return ort.InferenceSession(model, options, providers=[CPU_PROVIDER])
    options.add_session_config_entry(_RECORD, "1")
    load_libraries()
    cuda = CUDA_PROVIDER, provider_options(compute)
    engine = ort.InferenceSession(model, options, providers=[cuda, CPU_PROVIDER])
    if engine.get_providers()[0] == CUDA_PROVIDER:
        if not compute.allows_cpu:
            refuse_strays(manifest.tag, find_nodes(engine), find_size_nodes(model))
    elif compute.device is Device.CUDA:
        raise DeviceError(
            f"{manifest.tag}: LECTERN_DEVICE=cuda, but {CUDA_PROVIDER} does not load here; "
            "install the 'cuda' group on a machine with an NVIDIA driver, or use LECTERN_DEVICE=cpu"
        )
    return engine


@cache
def load_libraries() -> None:
    """Load NVIDIA's libraries where pip put them: ONNX Runtime's own provider looks only where the system does.

    What is not found it says on standard output, where it does not belong; the provider then says it once more.
    """
    with redirect_stdout(StringIO()), suppress(Exception):  # the border to whatever is installed
        ort.preload_dlls()


def _options(manifest: Manifest) -> ort.SessionOptions:
    options = ort.SessionOptions()
    # One thread a call: fastest for many callers, and the only safe setting for scatter sums (onnx.md, 3 and 6).
    options.intra_op_num_threads = manifest.intra_op_num_threads
    options.inter_op_num_threads = 1
    # The fused kernel is slower than what it replaces on a CPU: 0.80 against 0.71 ms for a tagger.
    options.add_session_config_entry("optimization.disable_specified_optimizers", "SkipLayerNormFusion")
    # It would write past our log, in colours and once per failure; the exception says the same.
    options.log_severity_level = 4
    return options


def find_nodes(engine: ort.InferenceSession) -> list[Node]:
    """Return where each node computes, of an engine that recorded it."""
    parts = engine.get_provider_graph_assignment_info()
    return [Node(node.name, node.op_type, part.ep_name) for part in parts for node in part.get_nodes()]


def refuse_strays(tag: str, nodes: Iterable[Node], size_nodes: frozenset[str]) -> None:
    """Let a model pass that computes on its GPU alone.

    ONNX Runtime's own switch (``session.disable_cpu_ep_fallback``) would refuse every model that asks for a shape:
    what depends on sizes alone it leaves to the CPU on purpose, and there it may stay.

    Raises:
        DeviceError: With the operators that would run on the CPU.
    """
    strays = Counter(node.operator for node in nodes if node.provider == CPU_PROVIDER and node.name not in size_nodes)
    if strays:
        named = ", ".join(f"{operator} ({count})" for operator, count in sorted(strays.items()))
        raise DeviceError(
            f"{tag}: no kernel on the GPU for {named}; let them run on the CPU with LECTERN_GPU_LEAVES_TO_CPU=true, "
            f"or the whole model with LECTERN_DEVICES={tag.split(':')[0]}=cpu"
        )


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
