"""Computing time of a request by every way, and what of it is the model's: ``python -m benchmarks.oip cost``.

Sixty-four connections without sockets are given a whole request each, again and again, and everything is computed in
this thread, whose time is taken; what a server adds around it (sockets, waiting) is the same for all ways.
"""

import asyncio
import gc
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from time import thread_time
from typing import Any

import numpy as np

from benchmarks.harness.machine import commit, describe
from benchmarks.oip.speed import WAYS, calls
from benchmarks.overhead.drift import CONNECTIONS, SLICE_SECONDS, BusyLoop, connect, spend
from models.paths import REPOSITORY
from models.runtime.predictor import open_predictor
from models.runtime.session import Session, open_artifact
from service.inference import scheduler

# Others on the machine only ever add to it: of each way the time that a tenth of its turns is below.
LEAST = 0.1
PLACE = REPOSITORY / "benchmarks" / "results" / "oip_cost.json"


def measure(model: str, rounds: int) -> dict[str, float]:
    """Microseconds of a request by way, and of the model's run alone in micro-batches of the same size."""
    scheduler.QUICK_SECONDS = 1e9  # everything in this thread, so that its time is all there is
    session = open_artifact(next((REPOSITORY / "models").glob(f"*/trained/{model}")))
    predictor = open_predictor(session)
    asked = {way: [call.to_bytes() for call in found] for way, found in calls(model, predictor).items()}
    with asyncio.Runner(loop_factory=BusyLoop) as runner:
        return runner.run(_measure(session, asked, rounds))


async def _measure(session: Session, asked: Mapping[str, list[bytes]], rounds: int) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in ("model", *WAYS)}
    with ThreadPoolExecutor(1) as pool:
        lines = {way: connect(session, pool) for way in WAYS}
        for way in WAYS:
            await spend(lines[way], asked[way], SLICE_SECONDS)
        gc.disable()
        for _ in range(rounds):
            for way in WAYS:
                taken[way].append(await spend(lines[way], asked[way], SLICE_SECONDS))
            taken["model"].append(_run(session))
        gc.enable()
    return {name: round(float(np.quantile(times, LEAST)), 1) for name, times in taken.items()}


def _run(session: Session) -> float:
    predictor: Any = open_predictor(session)
    rng = np.random.default_rng(0)
    samples = predictor.encode([session.card.random_request(rng, session.assets) for _ in range(CONNECTIONS)])
    feeds = [session.card.collate(batch) for batch in predictor.batches(samples)]
    wanted = predictor.wanted(explain=False)
    started, done = thread_time(), 0
    while thread_time() - started < SLICE_SECONDS:
        for one in feeds:
            predictor.run(one, wanted)
        done += CONNECTIONS
    return 1e6 * (thread_time() - started) / done


def write(results: Mapping[str, Mapping[str, float]]) -> None:
    """Keep the results, with the machine and the commit they are of."""
    told = {"commit": commit(), "machine": describe(), "microseconds": results}
    PLACE.write_text(json.dumps(told, indent=1) + "\n")
