# /// script
# dependencies = ["mlserver==1.7.1", "uvloop==0.21.0", "numpy==2.4.6"]
# ///
"""MLServer: every model in the server's own process, adaptive batching of 64 with a timer of 1 ms, no metrics.

``python -m benchmarks.peers.serve_mlserver PORT GRPC_PORT``. The protocol is KServe's (V2, JSON); a request
carries Lectern's body as one BYTES tensor of one element, so that MLServer can join requests along the batch axis
without parsing them. Beside it stands a custom route, which takes the body as it is: cheaper, but MLServer does not
batch it. Both are measured.
"""

import asyncio
import os
from typing import Any

from fastapi import Request, Response
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.handlers import custom_handler
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput

from benchmarks.peers import read_ports
from benchmarks.peers.codec import MODELS, Codec, open_codec
from models.errors import HttpError

MAX_BATCH = 64
TIMER_SECONDS = 0.001
# A custom route belongs to a class, not to a model: the first model answers for all.
codecs: dict[str, Codec] = {}


class MLServerModel(MLModel):
    """One model."""

    async def load(self) -> bool:
        """Open the session."""
        self.codec = codecs[self.name] = open_codec(self.name)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return the answers to a batch of requests, one element each."""
        bodies: list[Any] = list(payload.inputs[0].data)
        answers = self.codec.answer([self.codec.read(_bytes(body)) for body in bodies])
        data: Any = [self.codec.write(answer).decode() for answer in answers]
        output = ResponseOutput(name="answer", shape=[len(data), 1], datatype="BYTES", data=data)
        return InferenceResponse(model_name=self.name, outputs=[output])

    @custom_handler(rest_path="/v1/models/{model}/predict")
    async def reply(self, request: Request) -> Response:
        """Return the answer to one request, alone."""
        try:
            answer = codecs[request.path_params["model"]].reply(await request.body())
        except HttpError as error:
            return Response(str(error), error.status)
        return Response(answer, media_type="application/json")


def _bytes(body: str | bytes) -> bytes:
    return body.encode() if isinstance(body, str) else body


async def main(port: int, grpc_port: int) -> None:
    """Serve every model."""
    settings = Settings(
        debug=False,
        host="127.0.0.1",
        http_port=port,
        grpc_port=grpc_port,
        metrics_endpoint=None,
        parallel_workers=0,
        gzip_enabled=False,
        load_models_at_startup=False,
    )
    models = [
        ModelSettings(
            name=model,
            implementation=MLServerModel,
            max_batch_size=MAX_BATCH,
            max_batch_time=TIMER_SECONDS,
            parameters=ModelParameters(version="1"),
        )
        for model in MODELS
    ]
    await MLServer(settings).start(models)


if __name__ == "__main__":
    os.environ.setdefault("MLSERVER_PARALLEL_WORKERS", "0")
    asyncio.run(main(*read_ports(__doc__, "port", "grpc_port")))
