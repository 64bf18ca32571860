"""Check what an ONNX graph contains: every node of the graph, its subgraphs and functions."""

from collections.abc import Iterator

import onnx

from models.artifact.onnx_allowlist import ALLOWED
from models.errors import CertificateError

RANDOM = frozenset(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
)


def walk(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Yield every node, of subgraphs and model-local functions too."""
    yield from _walk(model.graph.node)
    for function in model.functions:
        yield from _walk(function.node)


def _walk(nodes: Iterator[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _walk(graph.node)


def training_nodes(model: onnx.ModelProto) -> list[str]:
    """Descriptions of nodes that behave as in training: their answers depend on the batch, or on chance."""
    found = []
    for node in walk(model):
        if node.op_type == "BatchNormalization" and (len(node.output) > 1 or _integer(node, "training_mode")):
            found.append(f"BatchNormalization {node.name!r} in training mode")
        elif node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]:
            found.append(f"Dropout {node.name!r} with a training switch")
        elif node.op_type in RANDOM:
            found.append(f"{node.op_type} {node.name!r}")
    return found


def _integer(node: onnx.NodeProto, name: str) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), 0)


def _sums_by_scatter(node: onnx.NodeProto) -> bool:
    return node.op_type == "ScatterND" and any(
        attribute.name == "reduction" and attribute.s not in (b"", b"none") for attribute in node.attribute
    )


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every constant of the main graph and of every node; branches are not on the allow-list."""
    sparse = list(model.graph.sparse_initializer)
    yield from model.graph.initializer
    for node in walk(model):
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            sparse += [attribute.sparse_tensor, *attribute.sparse_tensors]
    for tensor in sparse:
        yield from (tensor.values, tensor.indices)


def check_operators(model: onnx.ModelProto, threads: int) -> list[str]:
    """Return the sorted operator types of a graph that may be served.

    Args:
        model: The ONNX model.
        threads: ``intra_op_num_threads`` the artifact will be opened with.

    Raises:
        CertificateError: If a node is in training mode, an operator is not on the allow-list (dynamic quantisation
            mixes the rows of a batch, custom operators run foreign code), data lies outside the file, or a scatter
            sum would race (ONNX Runtime loses updates on two or more threads, microsoft/onnxruntime#18048).
    """
    training = training_nodes(model)
    if training:
        raise CertificateError("batch statistics are not frozen: " + "; ".join(training))
    for node in walk(model):
        if node.domain not in ("", "ai.onnx") or node.op_type not in ALLOWED:
            raise CertificateError(f"operator {node.domain or 'ai.onnx'}.{node.op_type} is not on the allow-list")
        if threads != 1 and _sums_by_scatter(node):
            raise CertificateError(f"ScatterND {node.name!r} sums on {threads} threads and would lose updates")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(model)):
        raise CertificateError("weights lie outside the file")
    return sorted({node.op_type for node in walk(model)})
