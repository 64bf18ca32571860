"""List who is measured: Lectern, its peers, and how each is started."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.harness.machine import BOTH_CORES, SERVER_CORES
from benchmarks.harness.protocols import BARE, PLAIN, TRITON, V2, Envelope

# Of every server, where it obeys them: one thread a session, as Lectern's artifacts say themselves.
THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Peer:
    """One row of the tables.

    Attributes:
        key: On the command line.
        title: In the tables.
        module: Its file in ``benchmarks.peers``, which also says what it needs; ``None`` is the service itself, in the
            interpreter that runs the benchmark.
        environment: The folder of its environment, which rows may share.
        arguments: After the module, with ``{port}`` and ``{spare}``, a second port, in them.
        settings: Environment variables.
        envelope: How it is asked.
        cores: Where it runs.
        is_alone: Whether a model is served alone while it is timed: its workers for other models, which nobody asks,
            would take a good part of the core (0.7 of it in LitServe, 0.2 in Ray).
    """

    key: str
    title: str
    module: str | None = None
    environment: str = ""
    arguments: tuple[str, ...] = ("{port}",)
    settings: Mapping[str, str] = field(default_factory=dict)
    envelope: Envelope = PLAIN
    cores: frozenset[int] = frozenset(SERVER_CORES)
    is_alone: bool = False

    @property
    def is_ours(self) -> bool:
        """Return whether it is Lectern."""
        return self.module is None


LECTERN = Peer(key="lectern", title="**Lectern**", arguments=())
ASGI = Peer(key="lectern-asgi", title="**Lectern, fast path off**", arguments=(), settings={"LECTERN_WIRE": "false"})
FASTAPI = Peer(key="fastapi", title="FastAPI", module="serve_fastapi", environment="fastapi")
# Both speak gRPC too, and one cannot be told not to.
_TWO = ("{port}", "{spare}")
_MOSEC = ("--address", "127.0.0.1", "--port", "{port}", "--log-level", "warning")
_RAY = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # In spite of its name: its own ports listen on the loopback address only, as on those systems.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}

PEERS = (
    LECTERN,
    ASGI,
    Peer(key="mosec", title="mosec", module="serve_mosec", environment="mosec", arguments=_MOSEC),
    Peer(
        key="mosec-16",
        title="mosec, batch 16",
        module="serve_mosec",
        environment="mosec",
        arguments=_MOSEC,
        settings={"PEER_BATCH": "16"},
    ),
    Peer(key="fastapi-tuned", title="FastAPI, tuned", module="serve_fastapi_tuned", environment="fastapi"),
    FASTAPI,
    Peer(
        key="pytriton",
        title="PyTriton",
        module="serve_pytriton",
        environment="pytriton",
        arguments=_TWO,
        envelope=TRITON,
    ),
    Peer(
        key="mlserver", title="MLServer", module="serve_mlserver", environment="mlserver", arguments=_TWO, envelope=V2
    ),
    Peer(
        key="mlserver-route",
        title="MLServer, custom route",
        module="serve_mlserver",
        environment="mlserver",
        arguments=_TWO,
    ),
    Peer(key="litserve", title="LitServe", module="serve_litserve", environment="litserve", is_alone=True),
    Peer(key="ray", title="Ray Serve", module="serve_ray", environment="ray", settings=_RAY, is_alone=True),
    Peer(key="bentoml", title="BentoML, batchable", module="serve_bentoml", environment="bentoml", envelope=BARE),
)
_BOTH = frozenset(BOTH_CORES)
# Server and client share both cores; the first says what the second core alone is worth to one worker.
PAIR = (
    Peer(key="lectern-both", title="Lectern, 1 worker", arguments=(), cores=_BOTH),
    Peer(key="lectern-2", title="Lectern, 2 workers", arguments=(), cores=_BOTH, settings={"LECTERN_WORKERS": "2"}),
)
ON_BOTH_CORES = {peer.key for peer in PAIR}
