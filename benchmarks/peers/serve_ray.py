# /// script
# dependencies = ["ray[serve]==2.60.0", "numpy==2.4.6"]
# ///
"""Ray Serve: one replica per model, ``serve.batch`` of 64 with a timer of 1 ms, tuned for throughput, no access log.

``python -m benchmarks.peers.serve_ray PORT``. The replica reads the raw request; the batch is of encoded samples.
"""

import signal
from typing import Any

import ray
from ray import serve
from ray.serve._private import replica
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig
from starlette.requests import Request
from starlette.responses import Response

from benchmarks.peers import read_ports
from benchmarks.peers.codec import MODELS, Samples, open_codec
from models.card import Prediction
from models.errors import HttpError

MAX_BATCH = 64
TIMER_SECONDS = 0.001


@serve.deployment(num_replicas=1, max_ongoing_requests=1024, ray_actor_options={"num_cpus": 0})
class RayModel:
    """One model."""

    def __init__(self, model: str) -> None:
        self.codec = open_codec(model)

    async def __call__(self, request: Request) -> Response:
        """Return the answer to one request."""
        try:
            samples = self.codec.read(await request.body())
        except HttpError as error:
            return Response(str(error), error.status)
        return Response(self.codec.write(await self.answer(samples)), media_type="application/json")

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=TIMER_SECONDS)
    async def answer(self, requests: list[Samples]) -> list[list[Prediction]]:
        """Return the predictions of a batch of requests."""
        return self.codec.answer(requests)


def stay_local() -> None:
    """Make a replica's own gRPC port, which Ray opens on every interface, listen on the loopback address."""
    listen = replica.add_port_to_grpc_server
    replica.add_port_to_grpc_server = lambda server, address: listen(server, address.replace("[::]", "127.0.0.1"))


def main() -> None:
    """Serve every model."""
    (port,) = read_ports(__doc__, "port")
    hook = {"worker_process_setup_hook": stay_local}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=hook)
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
    quiet: Any = LoggingConfig(enable_access_log=False)
    for model in MODELS:
        serve.run(RayModel.bind(model), name=model, route_prefix=f"/v1/models/{model}/predict", logging_config=quiet)
    try:
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
