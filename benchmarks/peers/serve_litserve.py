# /// script
# dependencies = ["litserve==0.2.19", "uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0",
#   "numpy==2.4.6"]
# ///
"""LitServe: one API server, one worker process per model, batches of 64, a timer of 1 ms.

``python -m benchmarks.peers.serve_litserve PORT``. The request's type is FastAPI's to resolve, so a dependency hands
the raw body on: the API server parses nothing, and the worker's ``decode_request`` and ``encode_response`` are
Lectern's reader and writer.
"""

from typing import Annotated

from fastapi import Depends, HTTPException, Request, Response
from litserve import LitAPI, LitServer

from benchmarks.peers import read_ports
from benchmarks.peers.codec import MODELS, Samples, open_codec
from models.card import Prediction
from models.errors import HttpError

MAX_BATCH = 64
TIMER_SECONDS = 0.001


async def raw_body(request: Request) -> bytes:
    """Return the body as it came."""
    return await request.body()


class ModelAPI(LitAPI):
    """One model."""

    def __init__(self, model: str) -> None:
        super().__init__(max_batch_size=MAX_BATCH, batch_timeout=TIMER_SECONDS, api_path=f"/v1/models/{model}/predict")
        self.model_name = model

    def setup(self, device: str) -> None:
        """Open the session, in the worker."""
        self.codec = open_codec(self.model_name)

    def decode_request(self, request: Annotated[bytes, Depends(raw_body)]) -> Samples:
        """Return the samples of one request."""
        try:
            return self.codec.read(request)
        except HttpError as error:
            raise HTTPException(error.status, str(error)) from error

    def batch(self, inputs: list[Samples]) -> list[Samples]:
        """Return the requests of a batch, as they are: the codec collates."""
        return list(inputs)

    def predict(self, x: list[Samples]) -> list[list[Prediction]]:
        """Return the predictions of a batch of requests."""
        return self.codec.answer(x)

    def unbatch(self, output: list[list[Prediction]]) -> list[list[Prediction]]:
        """Return one entry per request."""
        return output

    def encode_response(self, output: list[Prediction]) -> Response:
        """Return one answer."""
        return Response(self.codec.write(output), media_type="application/json")


def main() -> None:
    """Serve every model."""
    (port,) = read_ports(__doc__, "port")
    server = LitServer([ModelAPI(model) for model in MODELS], accelerator="cpu", workers_per_device=1, timeout=30)
    server.run(
        host="127.0.0.1", port=port, num_api_servers=1, generate_client_file=False, log_level="warning",
        access_log=False,
    )  # fmt: skip


if __name__ == "__main__":
    main()
