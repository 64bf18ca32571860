"""Measure what one poison request costs 63 others: ``python -m benchmarks.overhead.failure_isolation``.

Bodies go through the service's own exchange and micro-batcher, 64 at a time, in one process without HTTP. In each batch
one body is poisonous: refused by validation, answered by numbers that are not finite, or such that the model raises
whatever batch it is in. The kinds take turns round by round. Every innocent's answer is compared with the answer it
has alone.
"""

import asyncio
import json
import logging
from collections import Counter
from statistics import median
from time import process_time
from typing import Any

import click
import numpy as np
import orjson

from models.card import Array, Feeds
from models.errors import HttpError
from models.paths import REPOSITORY
from models.payload.json_payload import JSON
from models.runtime.predictor import LatencyModel, Run, open_predictor
from models.runtime.session import Session, open_artifact
from service.inference.endpoint import Endpoint, make_endpoint
from service.inference.gateway import InferenceGateway
from service.inference.json_codec import JSON_CODEC
from service.inference.request import InferenceRequest
from service.inference.scheduler import FairScheduler
from service.runners.backends import InProcessRunner
from service.settings import Settings

COMPANY = 64
MARK = 7
KINDS = ("none", "invalid", "not finite", "raises")
QUICK = LatencyModel(0.0, 0.0)


def poisonous(session: Session) -> Run:
    """The model, failing on marked inputs: days of ``MARK`` raise, days of ``MARK + 1`` have no finite answer."""

    def run(feeds: Feeds, outputs: list[str]) -> dict[str, Array]:
        days = feeds["views"]
        if (days == MARK).all(axis=1).any():
            raise ArithmeticError("poison")
        found = session.run(feeds, outputs)
        is_spoilt = (days == MARK + 1).all(axis=1)
        if is_spoilt.any():
            for values in found.values():
                values[is_spoilt] = np.nan
        return found

    return run


def bodies(kind: str, rng: np.random.Generator) -> list[bytes]:
    """64 bodies of view counts, the poisonous one at a random place."""
    days = rng.integers(100, 10**6, (COMPANY, 56)).astype(float)
    if kind != "none":
        row = days[rng.integers(COMPANY)]
        row[: 1 if kind == "invalid" else 56] = {"invalid": 0.5, "raises": MARK, "not finite": MARK + 1}[kind]
    return [orjson.dumps({"instances": [{"views": row.tolist()}]}) for row in days]


async def answer(gateway: InferenceGateway, endpoint: Endpoint, company: list[bytes]) -> list[bytes | HttpError]:
    """Return what each of the bodies is answered when all arrive in one turn of the loop."""
    loop = asyncio.get_running_loop()
    answers: list[asyncio.Future[bytes | HttpError]] = [loop.create_future() for _ in company]
    for answered, body in zip(answers, company, strict=True):
        gateway.submit(InferenceRequest(endpoint, JSON_CODEC, b"", answered.set_result), body, JSON, 60.0)
    return await asyncio.gather(*answers)


async def measure(batches: int, rounds: int) -> dict[str, Any]:
    """Innocents failed, statuses and batches a second, by kind of poison."""
    session = open_artifact(REPOSITORY / "models/viewcount/trained/viewcount")
    predictor, settings = open_predictor(session), Settings()
    gateway = InferenceGateway(endpoints={}, settings=settings, pool=None)  # type: ignore[arg-type]
    runner = InProcessRunner(None, poisonous(session))  # type: ignore[arg-type]
    endpoint = make_endpoint(session, session.provider, runner, FairScheduler(1), settings, QUICK)
    failed: Counter[str] = Counter()
    statuses: dict[str, Counter[int]] = {kind: Counter() for kind in KINDS}
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for number in range(rounds):
        for kind in KINDS:
            rng = np.random.default_rng(number)
            companies = [bodies(kind, rng) for _ in range(batches // rounds)]
            started = process_time()
            found = [await answer(gateway, endpoint, company) for company in companies]
            seconds[kind].append(process_time() - started)
            for answers in found:
                poisons = [one for one in answers if isinstance(one, HttpError)]
                statuses[kind].update(one.status if isinstance(one, HttpError) else 200 for one in answers)
                failed[kind] += max(0, len(poisons) - (kind != "none"))
            company, answers = companies[0], found[0]
            for body, one in zip(company, answers, strict=True):
                if not isinstance(one, HttpError):
                    alone = predictor.predict(endpoint.payloads.read(body).instances)
                    failed[kind] += one != endpoint.payloads.write(alone)
    clean = seconds["none"]
    return {
        kind: {
            "batches": batches // rounds * rounds,
            "innocents_failed": failed[kind],
            "statuses": dict(statuses[kind]),
            "requests_per_second": round(batches // rounds * COMPANY / median(seconds[kind])),
            "throughput": round(median(a / b for a, b in zip(clean, seconds[kind], strict=True)), 3),
        }
        for kind in KINDS
    }


@click.command(help=__doc__)
@click.option("--batches", default=10_000, show_default=True)
@click.option("--rounds", default=20, show_default=True)
def main(batches: int, rounds: int) -> None:
    """The command line."""
    logging.getLogger("lectern.batching").setLevel(logging.CRITICAL)  # ten thousand tracebacks say nothing new
    click.echo(json.dumps(asyncio.run(measure(batches, rounds)), indent=1))


if __name__ == "__main__":
    main()
