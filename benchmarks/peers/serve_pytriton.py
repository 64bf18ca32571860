# /// script
# requires-python = "==3.11.2"
# dependencies = ["nvidia-pytriton==0.7.0", "numpy==1.26.4"]
# ///
"""PyTriton: Triton's C++ front and dynamic batcher (queue delay 1 ms) around one bound function per model.

``python -m benchmarks.peers.serve_pytriton PORT GRPC_PORT``. A request is Lectern's body itself, in Triton's raw
binary form (one BYTES element, no JSON head), the answer one BYTES element. Its Python backend is not Triton's fastest.
Its stub needs exactly Debian's Python 3.11.2.
"""

import signal
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from benchmarks.peers import read_ports
from benchmarks.peers.codec import MODELS, open_codec

MAX_BATCH = 64
DELAY_US = 1000


def bind(model: str) -> Callable[..., Any]:
    """Return the function Triton calls with the requests of a batch."""
    codec = open_codec(model)

    def infer(requests: list[Any]) -> list[dict[str, NDArray[Any]]]:
        samples = [codec.read(request["body"].reshape(-1)[0]) for request in requests]
        answers = [codec.write(answer) for answer in codec.answer(samples)]
        return [{"answer": np.array([[answer]], dtype=object)} for answer in answers]

    return infer


def main(port: int, grpc_port: int) -> None:
    """Serve every model."""
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=port,
        grpc_address="127.0.0.1",
        grpc_port=grpc_port,
        allow_grpc=True,
        allow_metrics=False,
        log_verbose=0,
        strict_readiness=True,
    )
    batcher = DynamicBatcher(max_queue_delay_microseconds=DELAY_US)
    with Triton(config=config) as triton:
        for model in MODELS:
            triton.bind(
                model_name=model,
                infer_func=bind(model),
                inputs=[Tensor(name="body", dtype=bytes, shape=(1,))],
                outputs=[Tensor(name="answer", dtype=bytes, shape=(1,))],
                config=ModelConfig(max_batch_size=MAX_BATCH, batcher=batcher),
                strict=False,
            )
        triton.run()
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main(*read_ports(__doc__, "port", "grpc_port"))
