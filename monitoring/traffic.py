"""Minutes of traffic to look at: test requests, then shifted ones, mistakes, a short flood, and a job.

``python -m monitoring.traffic --url http://127.0.0.1:3000 --minutes 6``
"""

import argparse
import asyncio
import itertools
import json
from time import monotonic
from typing import Any

import httpx
import msgspec
import numpy as np

from benchmarks.quality.shifts import SHIFTS, load

# In how many requests a second a model is asked, from two instances each; and which are shifted in the last third.
RATES = {"viewcount": 12, "tagging": 8, "image": 12, "image-vit": 5, "citation": 6, "molecule": 5}
SHIFTED = ("image", "tagging")
SET = 3000


class TrafficBodies:
    """One model's requests, ready to send."""

    def __init__(self, model: str) -> None:
        rng, data = np.random.default_rng(3), load(model)
        usual = [request for request, _ in itertools.islice(data.examples("test"), SET)]
        self.usual = self._bodies(usual)
        self.shifted = self._bodies(SHIFTS[model][0].make(usual, data, rng)) if model in SHIFTED else self.usual
        self._next = itertools.count()

    @staticmethod
    def _bodies(instances: Any) -> list[bytes]:
        pairs = zip(instances[::2], instances[1::2], strict=False)
        return [msgspec.json.encode({"instances": list(pair)}) for pair in pairs]

    def draw(self, is_shifted: bool) -> bytes:
        """Return the next one."""
        chosen = self.shifted if is_shifted else self.usual
        return chosen[next(self._next) % len(chosen)]


async def ask(client: httpx.AsyncClient, model: str, bodies: TrafficBodies, seconds: float) -> None:
    """One model's traffic, in even steps; each thirtieth request is a mistake."""
    begun, rng = monotonic(), np.random.default_rng(len(model))
    async with asyncio.TaskGroup() as under_way:
        for number in itertools.count():
            passed = monotonic() - begun
            if passed > seconds:
                return
            body = b'{"instances": [5]}' if number % 30 == 29 else bodies.draw(passed > seconds * 0.6)
            under_way.create_task(_send(client, model, body))
            await asyncio.sleep(rng.exponential(1 / RATES[model]) * (1 if passed < seconds / 2 else 0.7))


async def _send(client: httpx.AsyncClient, model: str, body: bytes, **headers: str) -> None:
    headers = {"content-type": "application/json", **headers}
    await client.post(f"/v1/models/{model}/predict", content=body, headers=headers)


async def flood(client: httpx.AsyncClient, seconds: float) -> None:
    """For a tenth of the time, more long sentences than can be answered in the time that is allowed."""
    await asyncio.sleep(seconds * 0.4)
    body = json.dumps({"instances": [{"tokens": ["long"] * 512}] * 16}).encode()
    until = monotonic() + seconds * 0.1
    while monotonic() < until:
        wave = [_send(client, "tagging", body, **{"x-request-timeout-ms": "400"}) for _ in range(12)]
        await asyncio.gather(*wave, asyncio.sleep(0.5))


async def score(client: httpx.AsyncClient, seconds: float, rows: int = 3000) -> None:
    """A job, one row in fifty of it bad."""
    await asyncio.sleep(seconds * 0.2)
    lines = (b'{"text": "I saw a saw in the old house that fell"}', b'{"text": 5}')
    content = b"\n".join(lines[number % 50 == 49] for number in range(rows)) + b"\n"
    await client.post("/v1/jobs?model=tagging&format=jsonl&output_format=jsonl", content=content)


async def run(url: str, seconds: float) -> None:
    """All of it at once."""
    bodies = {model: TrafficBodies(model) for model in RATES}
    limits = httpx.Limits(max_connections=64)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits, trust_env=False) as client:
        asked = [ask(client, model, bodies[model], seconds) for model in RATES]
        await asyncio.gather(*asked, flood(client, seconds), score(client, seconds))


def main() -> None:
    """Ask a running service."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.traffic", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:3000", help="of the service (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=6, help="default %(default)s")
    given = parser.parse_args()
    asyncio.run(run(given.url, given.minutes * 60))


if __name__ == "__main__":
    main()
