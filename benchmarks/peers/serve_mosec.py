# /// script
# dependencies = ["mosec==0.9.8", "numpy==2.4.6"]
# ///
"""mosec: a Rust front, one worker process per model, dynamic batching with a timer of 1 ms.

``python -m benchmarks.peers.serve_mosec --address 127.0.0.1 --port N``; ``PEER_BATCH`` is the largest batch. The worker
reads and writes Lectern's own bodies in ``deserialize`` and ``serialize``, so nothing but bytes crosses a process.
"""

import os

from mosec import Runtime, Server, ValidationError, Worker
from mosec import get_logger as _logger

from benchmarks.peers.codec import MODELS, Samples, open_codec
from models.card import Prediction
from models.errors import HttpError

MAX_WAIT_MS = 1


class ModelWorker(Worker):
    """One model."""

    resp_mime_type = "application/json"

    def __init__(self) -> None:
        super().__init__()
        self.codec = open_codec(os.environ["PEER_MODEL"])

    def deserialize(self, data: bytes | memoryview) -> Samples:
        """Return the samples of one request."""
        try:
            return self.codec.read(data)
        except HttpError as error:
            raise ValidationError(str(error)) from error

    def forward(self, data: list[Samples]) -> list[list[Prediction]]:
        """Return the predictions of a batch of requests."""
        return self.codec.answer(data)

    def serialize(self, data: list[Prediction]) -> bytes:
        """Return the body of one answer."""
        return self.codec.write(data)


def main() -> None:
    """Serve every model."""
    _logger().setLevel("WARNING")
    batch = int(os.environ.get("PEER_BATCH", "64"))
    routes = {}
    for model in MODELS:
        runtime = Runtime(
            ModelWorker, num=1, max_batch_size=batch, max_wait_time=MAX_WAIT_MS, env=[{"PEER_MODEL": model}]
        )
        routes[f"/v1/models/{model}/predict"] = [runtime]
    server = Server()
    server.register_runtime(routes)
    server.run()


if __name__ == "__main__":
    main()
