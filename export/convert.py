"""A torch net to an ONNX model: dynamo exporter, opset 20, axes named by the card."""

import logging
import warnings
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import onnx
import torch
from torch import Tensor, nn

from models.artifact.manifest import ASSETS_KEY
from models.card import AnyCard, Array, Assets, Feeds, TensorSpec

# Opset 23 turns attention into an operator whose CPU kernel rejects broadcast masks; at 18 GELU is five nodes.
OPSET = 20


def example_feeds(card: AnyCard, assets: Assets, *, count: int, seed: int) -> Feeds:
    """Collated random requests."""
    rng = np.random.default_rng(seed)
    return card.collate([card.encode(card.random_request(rng, assets), assets) for _ in range(count)])


def run_torch(net: nn.Module, card: AnyCard, feeds: Feeds) -> dict[str, Array]:
    """The net's outputs as numpy arrays, without gradients, in whatever mode the net is."""
    with torch.inference_mode():
        found: dict[str, Tensor] = net(*(torch.from_numpy(feeds[spec.name]) for spec in card.inputs))
    return {name: tensor.numpy() for name, tensor in found.items()}


def to_onnx(net: nn.Module, card: AnyCard, assets: Assets) -> onnx.ModelProto:
    """Export in evaluation mode, with the assets inside and nothing of this machine left in the file."""
    net.eval()
    # The exporter warns of torchvision, which we do not use, and of its own use of a deprecated class.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="copyreg")
    feeds = example_feeds(card, assets, count=5, seed=0)
    inputs = tuple(torch.from_numpy(feeds[spec.name]) for spec in card.inputs)
    with torch.no_grad():
        names = list(net(*inputs))
        program = torch.onnx.export(
            net,
            inputs,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=tuple(_dynamic(spec, assets) for spec in card.inputs),
            input_names=[spec.name for spec in card.inputs],
            output_names=names,
            external_data=False,
            verbose=False,
        )
    assert program is not None  # dynamo=True always gives a program
    model = program.model_proto
    _strip(model)
    _name_axes(model.graph.input, card.inputs, assets)
    _name_axes(model.graph.output, card.outputs, assets)
    onnx.helper.set_model_props(model, {ASSETS_KEY: msgspec.json.encode(assets).decode()})
    onnx.checker.check_model(model, full_check=True)
    return model


def _dynamic(spec: TensorSpec, assets: Assets) -> dict[int, Any]:
    return {index: torch.export.Dim.DYNAMIC for index, axis in enumerate(spec.axes) if axis not in assets.sizes}


def _strip(model: onnx.ModelProto) -> None:
    """Take out stack traces with source paths, and shapes inferred for the example alone."""
    del model.graph.value_info[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for part in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del part.metadata_props[:]


def _name_axes(values: Sequence[Any], specs: Sequence[TensorSpec], assets: Assets) -> None:
    shapes = {spec.name: spec.shape(assets.sizes) for spec in specs}
    for value in values:
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=True):
            if isinstance(size, str):
                dim.dim_param = size
