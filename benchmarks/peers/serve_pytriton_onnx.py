# /// script
# requires-python = "==3.11.2"
# dependencies = ["nvidia-pytriton==0.7.0", "numpy==1.26.4"]
# ///
"""A real Triton around Lectern's own artifacts, each through its Python backend with the tensors of the ONNX graph.

``python -m benchmarks.peers.serve_pytriton_onnx PORT GRPC_PORT``. What it answers is what the protocol is held to by
``python -m benchmarks.oip triton``. Its stub needs exactly Debian's Python 3.11.2.
"""

import signal
from collections.abc import Callable
from typing import Any

import numpy as np
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from benchmarks.peers import read_ports
from models.artifact.manifest import MANIFEST_FILE
from models.card import TensorSpec
from models.paths import REPOSITORY
from models.runtime.session import Session, open_artifact

MAX_BATCH = 1024


def bind(session: Session, names: list[str]) -> Callable[..., Any]:
    """Return the function Triton calls with requests; each is run alone, so that nothing depends on the others."""

    def infer(requests: list[Any]) -> list[dict[str, Any]]:
        return [session.run({name: request[name] for name in request.data}, names) for request in requests]

    return infer


def tensors(specs: list[TensorSpec], session: Session, first: int) -> list[Tensor]:
    """Return the tensors of a graph, without the axis of the batch."""
    sizes = session.assets.sizes
    found = []
    for spec in specs:
        shape = tuple(sizes.get(axis, -1) for axis in spec.axes[first:])
        found.append(Tensor(name=spec.name, dtype=np.dtype(spec.dtype).type, shape=shape))
    return found


def main(port: int, grpc_port: int) -> None:
    """Serve every model."""
    config = TritonConfig(
        http_address="127.0.0.1", http_port=port, grpc_address="127.0.0.1", grpc_port=grpc_port, allow_grpc=True,
        allow_metrics=False, log_verbose=0, strict_readiness=True,
    )  # fmt: skip
    with Triton(config=config) as triton:
        for path in sorted(REPOSITORY.glob(f"models/*/trained/*/{MANIFEST_FILE}")):
            session = open_artifact(path.parent)
            outputs = [spec for spec in session.card.outputs if not spec.is_attention]
            is_batched = all(spec.axes[0] == "batch" for spec in (*session.card.inputs, *outputs))
            batching = {"max_batch_size": MAX_BATCH, "batcher": DynamicBatcher()} if is_batched else {"batching": False}
            triton.bind(
                model_name=path.parent.name,
                infer_func=bind(session, [spec.name for spec in outputs]),
                inputs=tensors(list(session.card.inputs), session, int(is_batched)),
                outputs=tensors(outputs, session, int(is_batched)),
                config=ModelConfig(**batching),
                strict=True,
            )
        triton.run()
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main(*read_ports(__doc__, "port", "grpc_port"))
