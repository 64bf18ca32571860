"""What CUDA's provider is told, and which nodes may stay on the CPU beside a GPU."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.artifact.onnx_allowlist import find_size_nodes
from models.errors import ArtifactMismatch, DeviceError
from models.runtime.device import (
    CPU_PROVIDER,
    CUDA_PROVIDER,
    ON_CPU,
    Compute,
    ConvolutionSearch,
    Device,
    Padding,
    provider_options,
)
from models.runtime.session import Node, find_nodes, load_libraries, open_artifact, refuse_strays

DEFAULTS = {
    "device_id": "0",
    "use_tf32": "0",
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",
    "do_copy_in_default_stream": "1",
}


@pytest.mark.parametrize(
    ("compute", "changed"),
    [
        (ON_CPU, {}),
        (Compute(device=Device.CUDA, device_id=3), {"device_id": "3"}),
        (Compute(uses_tf32=True), {"use_tf32": "1"}),
        (Compute(search=ConvolutionSearch.DEFAULT), {"cudnn_conv_algo_search": "DEFAULT"}),
        (Compute(search=ConvolutionSearch.EXHAUSTIVE), {"cudnn_conv_algo_search": "EXHAUSTIVE"}),
        (Compute(memory_bytes=2**31), {"gpu_mem_limit": "2147483648"}),
    ],
)
def test_provider_options(compute: Compute, changed: dict[str, str]) -> None:
    """TF32 off, algorithms by rule, arenas as large as needed; each choice changes its own option."""
    assert provider_options(compute) == DEFAULTS | changed


def test_the_provider_knows_every_option() -> None:
    """The provider's library in the wheel holds each name: a misspelt option would be an error on the first GPU."""
    code = "import onnxruntime; print(onnxruntime.__path__[0])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    library = Path(done.stdout.strip(), "capi", "libonnxruntime_providers_cuda.so")
    if not library.exists():
        pytest.skip("the runtime here is without CUDA's provider")
    names = {name.encode() for name in provider_options(Compute(memory_bytes=1))}
    with library.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        assert [name for name in names if content.find(name) < 0] == []
        assert content.find(b"use_tf33") < 0


@pytest.mark.parametrize(
    ("padding", "provider", "pads"),
    [
        (Padding.AUTO, CPU_PROVIDER, False),
        (Padding.AUTO, CUDA_PROVIDER, True),
        (Padding.ALWAYS, CPU_PROVIDER, True),
        (Padding.NEVER, CUDA_PROVIDER, False),
    ],
)
def test_padding(padding: Padding, provider: str, pads: bool) -> None:
    """Batches are filled up on a GPU, or where that is said."""
    assert Compute(padding=padding).pads(provider) is pads


def test_libraries_are_loaded_where_pip_put_them(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], shipped_folder: Callable[[str], Path]
) -> None:
    """Before the first session on a GPU, once, and without a word on standard output; never for the CPU."""
    calls = []

    def preload() -> None:
        calls.append(1)
        print("Failed to load libcublas")  # noqa: T201

    monkeypatch.setattr("models.runtime.session.ort.preload_dlls", preload)
    load_libraries.cache_clear()
    open_artifact(shipped_folder("viewcount"))
    assert calls == []
    for _ in range(2):
        load_libraries()
    assert (calls, capfd.readouterr().out) == ([1], "")
    load_libraries.cache_clear()


# Who computes what


def planted() -> bytes:
    """Return a graph of sizes (``Shape``, then what only depends on it) beside numbers (``Relu`` of the request)."""
    nodes = [
        helper.make_node("Shape", ["x"], ["sizes"], "asks"),
        helper.make_node("Gather", ["sizes", "first"], ["rows"], "picks"),
        helper.make_node("Mul", ["rows", "first"], ["twice"], "doubles"),
        helper.make_node("Relu", ["x"], ["y"], "computes"),
        helper.make_node("Reshape", ["y", "sizes"], ["z"], "joins"),
    ]
    graph = helper.make_graph(
        nodes,
        "planted",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(np.array(0), "first")],
    )
    model: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()
    return model


def test_what_depends_on_sizes_alone() -> None:
    """``Shape`` and what is made of its answer; never what sees a number of the request."""
    assert find_size_nodes(planted()) == {"asks", "picks", "doubles"}
    with pytest.raises(ArtifactMismatch):
        find_size_nodes(planted()[:-3])


@pytest.mark.parametrize("name", ["citation", "molecule", "tagging", "image", "image-vit", "viewcount"])
def test_size_nodes_see_no_number(name: str, shipped_folder: Callable[[str], Path]) -> None:
    """By the ONNX library's own reading: no input of the graph leads to such a node but through a ``Shape``."""
    model = onnx.load(shipped_folder(name) / "model.onnx")
    reached = {value.name for value in model.graph.input}
    touched = set()
    for node in model.graph.node:
        if node.op_type != "Shape" and reached & {*node.input}:
            reached |= {*node.output}
            touched.add(node.name)
    found = find_size_nodes((shipped_folder(name) / "model.onnx").read_bytes())
    assert found == {node.name for node in model.graph.node} - touched


@pytest.mark.parametrize("name", ["viewcount", "tagging"])
def test_every_node_is_told(name: str, shipped_folder: Callable[[str], Path]) -> None:
    """A session that records its assignment names every node's provider; on a CPU all are the CPU's, and stray."""
    session = open_artifact(shipped_folder(name), Compute(records_nodes=True))
    nodes = find_nodes(session.engine)
    assert len(nodes) > 10
    assert {node.provider for node in nodes} == {CPU_PROVIDER}
    size_nodes = find_size_nodes((shipped_folder(name) / "model.onnx").read_bytes())
    with pytest.raises(DeviceError, match=rf"^{name}:\S+: no kernel on the GPU for .*Gemm \(\d+\).*={name}=cpu$"):
        refuse_strays(session.manifest.tag, nodes, size_nodes)
    refuse_strays(session.manifest.tag, (node._replace(provider=CUDA_PROVIDER) for node in nodes), size_nodes)


def test_strays_are_counted() -> None:
    """What computes numbers on the CPU is an error with every operator's count; what computes sizes there is not."""
    names = Counter({"Gemm": 2, "Elu": 1})
    strays = [
        Node(f"{operator}-{position}", operator, CPU_PROVIDER)
        for operator in names
        for position in range(names[operator])
    ]
    good = [Node("a", "Relu", CUDA_PROVIDER), Node("b", "Gather", CPU_PROVIDER)]
    refuse_strays("m:1", good, frozenset("b"))
    with pytest.raises(DeviceError, match=r"^m:1: no kernel on the GPU for Elu \(1\), Gemm \(2\); let them"):
        refuse_strays("m:1", good + strays, frozenset("b"))
