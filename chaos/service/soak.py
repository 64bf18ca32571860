"""Soak: a hundred thousand mixed requests leave no memory, file or thread behind."""

import json
from io import BytesIO
from random import Random
from time import sleep
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.harness.closed_loop import ClosedLoopPlan as ClosedPlan
from benchmarks.harness.machine import CLIENT_CORES, MEGABYTE, on_cores
from benchmarks.harness.measure import drive
from benchmarks.harness.protocols import JSON
from benchmarks.harness.workloads import NPY
from benchmarks.peers.codec import ALL_MODELS
from chaos.service.harness import Harness, Site, one_request, reconcile, requests
from chaos.service.verdict import ChaosVerdict

TITLE = "soak"
CONTROL = "4 kB left behind by every answer"
TOTAL, WARM = 100_000, 10_000
MOST_MEGABYTES = 20.0
CONNECTIONS = 32
# Beyond this, a small run would call a leak what is a buffer that grew once.
LEAST_TOTAL = 20_000
PATIENCE_SECONDS = 1500.0
BAD = (
    b"",
    b"null",
    b"[]",
    b"{",
    b'{"instances": []}',
    b'{"instances": [null]}',
    b'{"instances": [{"x": NaN}]}',
    b"\xff",
)


def mix(ground: Harness) -> list[bytes]:
    """Good and bad requests to every model, shuffled: JSON, arrays, pictures, explanations."""
    found = list[bytes]()
    for model, body in ground.examples(*ALL_MODELS).items():
        explained = json.dumps({**json.loads(body), "explain": True}).encode()
        found += requests(model, [body] * 6 + [explained]) + requests(model, list(BAD))
        found += requests(model, body, "text/plain")
        found.append(one_request(f"/v1/models/{model}/predict", {"content-type": JSON}, b"", "PUT"))
    rng = np.random.default_rng(7)
    picture = rng.integers(0, 256, (28, 28)).astype(np.uint8)
    for model in ("image", "image-vit"):
        for content, media_type in (
            (_npy(picture), NPY),
            (_png(picture), "image/png"),
            (_png(picture)[:99], "image/png"),
        ):
            found += requests(model, content, media_type) * 3
    found += requests("viewcount", _npy(rng.integers(1, 10**6, (4, 56)).astype(np.float32)), NPY) * 3
    Random(7).shuffle(found)  # noqa: S311  no secret
    return found


def _npy(array: NDArray[Any]) -> bytes:
    buffer = BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _png(array: NDArray[Any]) -> bytes:
    buffer = BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def run(ground: Harness, faults: tuple[str, ...] = ()) -> ChaosVerdict:
    """Warm up, look, send, look again."""
    verdict, total = ChaosVerdict(trial="soak"), ground.part(TOTAL, LEAST_TOTAL)
    content = mix(ground)
    with ground.serve(*ALL_MODELS, faults=faults) as site:
        before = site.count()
        warm = _drive(site, content, WARM)
        first = _look(site)
        ground.say(f"soak: {total} requests")
        statuses = _drive(site, content, total)
        second = _look(site)
        for status, number in warm.items():
            statuses[status] = statuses.get(status, 0) + number
        after = site.count()
    grown = {name: second[name] - first[name] for name in first}
    verdict.at_most("memory of a worker grows by", grown["rss_mb"], MOST_MEGABYTES * max(ground.share, 0.25), " MB")
    verdict.at_most("open files grow by", grown["files"], 0)
    verdict.at_most("threads grow by", grown["threads"], 0)
    strange = {s: n for s, n in statuses.items() if not (s == "200" or s.startswith("4"))}
    verdict.expect("only 200 and 4xx", strange or "only those", not strange)
    reconcile(verdict, statuses, before, after)
    verdict.measured = {"requests": total, "after_warm_up": first, "at_the_end": second, "statuses": statuses}
    return verdict


def control(ground: Harness) -> ChaosVerdict:
    """Return the same with a fault."""
    return run(Harness(folder=ground.folder, share=0.1, say=ground.say), ("leak",))


def _drive(site: Site, content: list[bytes], total: int) -> dict[str, int]:
    plan = ClosedPlan(port=site.port, requests=content, connections=CONNECTIONS, seconds=PATIENCE_SECONDS, total=total)
    with on_cores(set(CLIENT_CORES)):
        return drive(plan)[0].statuses


def _look(site: Site) -> dict[str, float]:
    """Memory, files and threads of the worker, once its idle connections are gone."""
    sleep(1.5)
    (worker,) = site.workers()
    return {
        "rss_mb": round(worker.memory_info().rss / MEGABYTE, 1),
        "files": worker.num_fds(),
        "threads": worker.num_threads(),
    }
