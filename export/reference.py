"""Compute in float64 what a device is compared with, by torch or by ONNX's own slow evaluator."""

from copy import deepcopy
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from export.convert import run_torch
from models.card import AnyCard, Array, Feeds
from models.runtime.predictor import Run

TORCH, EVALUATOR = "torch", "onnx.reference"


def torch_float64(net: nn.Module, card: AnyCard) -> Run:
    """Return the net itself in float64, in evaluation mode, on the CPU."""
    wide = deepcopy(net).cpu().double().eval()

    def run(feeds: Feeds, outputs: list[str]) -> dict[str, Array]:
        found = run_torch(wide, card, _widened(feeds))
        return {name: found[name] for name in outputs}

    return run


def graph_float64(content: bytes) -> Run:
    """Return an ONNX file's graph in float64, for artifacts whose run is not at hand.

    It is computed by the evaluator that comes with ONNX's specification, in numpy: neither torch nor ONNX Runtime.
    """
    evaluator = ReferenceEvaluator(_wide_model(content))

    def run(feeds: Feeds, outputs: list[str]) -> dict[str, Array]:
        found: list[Any] = evaluator.run(outputs, _widened(feeds))  # type: ignore[assignment]
        return dict(zip(outputs, found, strict=True))

    return run


def _widened(feeds: Feeds) -> Feeds:
    return {name: feed.astype(np.float64) if feed.dtype == np.float32 else feed for name, feed in feeds.items()}


def _wide_model(content: bytes) -> onnx.ModelProto:
    model = onnx.load_model_from_string(content)
    graph = model.graph
    del graph.value_info[:]
    for tensor in graph.initializer:
        _widen(tensor)
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for node in graph.node:
        _widen_node(node)
    return model


def _widen_node(node: onnx.NodeProto) -> None:
    if node.op_type == "ConstantOfShape" and not node.attribute:  # its default is a float32 nought
        node.attribute.append(onnx.helper.make_attribute("value", numpy_helper.from_array(np.zeros(1))))
    for attribute in node.attribute:
        if attribute.type == AttributeProto.TENSOR:
            _widen(attribute.t)
        elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.DOUBLE


def _widen(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
