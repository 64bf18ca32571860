"""Measure what comparing with the drift profile costs a request: ``python -m benchmarks.overhead.drift``.

Sixty-four connections without sockets are given a whole request each, again and again, by a model with its profile and
by the same without; the time of this thread is taken, in which everything is computed. What a server adds around it
(sockets, waiting) is the same for both, so that of a served request it is a smaller part. The event loop's clock is
this thread's time, too: on a busy machine, pauses would else be many and requests few.
"""

import asyncio
import dataclasses
import gc
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from time import thread_time
from types import SimpleNamespace
from typing import Any

import click
import msgspec
import numpy as np
import uvicorn
from uvicorn.server import ServerState

from benchmarks.overhead.auth import Socket
from models.paths import REPOSITORY
from models.runtime.predictor import open_predictor, warm_up
from models.runtime.session import Session, open_artifact
from service.inference import scheduler
from service.inference.endpoint import make_endpoint
from service.inference.gateway import InferenceGateway
from service.inference.scheduler import FairScheduler
from service.runners.backends import InProcessRunner
from service.server.context import ServerContext
from service.server.protocol_factory import ProtocolFactory
from service.server.routes import Application
from service.settings import Settings
from service.telemetry.drift import MOST_AT_ONCE, PAUSE_SECONDS, DriftCounters

CONNECTIONS = 64
SLICE_SECONDS = 0.1
Lines = list[tuple[Any, Socket]]


class BusyLoop(asyncio.SelectorEventLoop):
    """A loop that never waits, whose clock stands still while others have the core."""

    def time(self) -> float:
        """Seconds of this thread."""
        return thread_time()


def connect(session: Session, pool: ThreadPoolExecutor) -> Lines:
    """Connections to a model, and what each writes to."""
    predictor = open_predictor(session)
    pace = warm_up(predictor)
    endpoint = make_endpoint(session, "none", InProcessRunner(pool, session.run), FairScheduler(1), Settings(), pace)
    gateway = InferenceGateway(endpoints={session.manifest.model: endpoint}, settings=Settings(), pool=pool)
    context = ServerContext(gateway=gateway)
    inner: Any = SimpleNamespace()
    front = Application(inner, lambda: context)
    config = uvicorn.Config(front, ws="none", lifespan="off", log_config=None)
    config.load()
    lines = []
    for _ in range(CONNECTIONS):
        wire, transport = ProtocolFactory(front)(config=config, server_state=ServerState(), app_state={}), Socket()
        wire.connection_made(transport)
        lines.append((wire, transport))
    return lines


def requests_of(session: Session) -> list[bytes]:
    """Return one for each connection."""
    rng, found = np.random.default_rng(0), []
    for _ in range(CONNECTIONS):
        body = msgspec.json.encode({"instances": [session.card.random_request(rng, session.assets)]})
        head = b"POST /v1/models/%b/predict HTTP/1.1\r\nhost: x\r\n" % session.manifest.model.encode()
        found.append(b"%bcontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (head, len(body), body))
    return found


async def spend(lines: Lines, requests: list[bytes], seconds: float) -> float:
    """Time of this thread for one request, microseconds, all connections at once."""
    started, done = thread_time(), 0
    while thread_time() - started < seconds:
        for (wire, _), request in zip(lines, requests, strict=True):
            wire.data_received(request)
        while any(wire.unanswered for wire, _ in lines):
            await asyncio.sleep(0)
        done += len(lines)
    return 1e6 * (thread_time() - started) / done


async def measure(model: str, rounds: int) -> tuple[float, float, float]:
    """Microseconds of a request without, and which shares of it watching and a twin without add.

    Of each way the time that a tenth of its turns is below: others on the machine only ever add to it.
    """
    session = open_artifact(next((REPOSITORY / "models").glob(f"*/trained/{model}")))
    bare = dataclasses.replace(session, manifest=msgspec.structs.replace(session.manifest, profile=None))
    requests = requests_of(session)
    with ThreadPoolExecutor(1) as pool:
        ways = {name: connect(one, pool) for name, one in (("bare", bare), ("twin", bare), ("watched", session))}
        for lines in ways.values():
            await spend(lines, requests, SLICE_SECONDS)
        taken: dict[str, list[float]] = {name: [] for name in ways}
        gc.disable()
        for turn in range(rounds):
            for name in list(ways) if turn % 2 else [*ways][::-1]:
                taken[name].append(await spend(ways[name], requests, SLICE_SECONDS))
        gc.enable()
    least = {name: float(np.quantile(times, 0.1)) for name, times in taken.items()}
    return least["bare"], least["watched"] / least["bare"] - 1, least["twin"] / least["bare"] - 1


async def count_once(model: str) -> float:
    """Microseconds to count what is put down in one pause."""
    session = open_artifact(next((REPOSITORY / "models").glob(f"*/trained/{model}")))
    predictor = open_predictor(session)
    profile, traits = session.manifest.profile, session.card.traits
    assert profile is not None  # every shipped model has one
    assert traits is not None
    rng = np.random.default_rng(0)
    samples = predictor.encode([session.card.random_request(rng, session.assets) for _ in range(MOST_AT_ONCE)])
    predictions = [answer for batch in predictor.batches(samples) for answer in predictor.infer(batch)]
    times = []
    for _ in range(50):
        one = DriftCounters(model, profile, traits, session.assets)
        one.see(samples, predictions)
        started = thread_time()
        one.count()
        times.append(1e6 * (thread_time() - started))
    return median(times)


@click.command(help=__doc__)
@click.option("--rounds", default=100, show_default=True, help="Of a tenth of a second each way.")
@click.option("--model", "models", multiple=True, default=("viewcount", "tagging", "image", "molecule", "citation"))
def main(rounds: int, models: tuple[str, ...]) -> None:
    """The command line."""
    scheduler.QUICK_SECONDS = 1e9  # everything in this thread, so that its time is all there is
    for model in models:
        with asyncio.Runner(loop_factory=BusyLoop) as runner:
            spent, more, twin = runner.run(measure(model, rounds))
            once = runner.run(count_once(model))
        share = once / 1e6 / PAUSE_SECONDS
        click.echo(
            f"{model:10} {spent:8.1f} µs a request; watched {100 * more:+.2f} % (the same again {100 * twin:+.2f} %); "
            f"{once:.0f} µs for {MOST_AT_ONCE} instances, at most {100 * share:.2f} % of a core"
        )


if __name__ == "__main__":
    main()
