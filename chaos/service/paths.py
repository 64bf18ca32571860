"""Paths: whatever is asked for, the page of metrics keeps its size and its speed; dead workers do not change that."""

import random
import socket
import string
from contextlib import suppress
from statistics import median
from time import sleep

from chaos.service.counters import scrape
from chaos.service.harness import Harness, Site, offer, peak, start_load, workload
from chaos.service.verdict import ChaosVerdict
from chaos.service.worker_kill import kill
from service.process.supervisor import metrics_folder

TITLE = "random paths and dead workers"
CONTROL = "every path is let through to BentoML"
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "LECTERN")
STEMS = ("/", "/v1/models/", "/v1/models/image/", "/metrics/", "/static_content/", "/v2/", "/readyz")
SCRAPE_SECONDS = 0.25
SCRAPES = 5


def run(ground: Harness, faults: tuple[str, ...] = ()) -> ChaosVerdict:
    """Ten thousand random requests, then scrapes under load, then dead workers."""
    verdict, rng = ChaosVerdict(trial="paths"), random.Random(7)  # noqa: S311  no secret
    with ground.serve("image", faults=faults) as site:
        content = workload("image", x_request_timeout_ms="1000")
        most = peak(site, content, 3)
        for path in ("/", "/healthz", "/readyz", "/docs.json", "/nowhere"):
            _ask(site.port, _request(rng, "GET", path))
        site.count()
        start = site.count()
        for _ in range(ground.part(10_000)):
            _ask(site.port, _request(rng, rng.choice(METHODS), rng.choice(STEMS) + _noise(rng)))
        after = site.count()
        verdict.at_most("new series from random paths", after.series - start.series, 0)
        _scrapes(site, content, most, verdict)
        if not faults:
            _deaths(ground, site, start.series, verdict)
        verdict.measured["series"] = {"before": start.series, "after": after.series, "page_bytes": after.size_bytes}
    return verdict


def control(ground: Harness) -> ChaosVerdict:
    """Return the same with a fault."""
    return run(Harness(folder=ground.folder, share=0.02, say=ground.say), ("labels",))


def _scrapes(site: Site, content: list[bytes], most: float, verdict: ChaosVerdict) -> None:
    load, took = start_load(site, content, (5 * most, 5.0)), list[float]()
    sleep(2)
    for _ in range(SCRAPES):
        with suppress(OSError):
            took.append(scrape(site.port).seconds)
    load.report()
    calm = [scrape(site.port).seconds for _ in range(SCRAPES)]
    verdict.at_most("a scrape under five times the load", max(took, default=30.0), SCRAPE_SECONDS, " s")
    verdict.measured["scrape"] = {"calm_s": round(median(calm), 4), "under_load_s": [round(one, 3) for one in took]}


def _deaths(ground: Harness, site: Site, series: int, verdict: ChaosVerdict) -> None:
    deaths = ground.part(20)
    for number in range(deaths):
        ground.say(f"worker death {number + 1}")
        kill(site)
        offer(site, workload("image"), (100, 0.5))
    found = site.count()
    folder = metrics_folder(site.home / "bentoml", processes=1) or site.home / "bentoml/prometheus_multiproc_dir"
    files = len(list(folder.iterdir()))
    verdict.at_most(f"new series from {deaths} dead workers", found.series - series, 0)
    verdict.at_most("a scrape after them", found.seconds, SCRAPE_SECONDS, " s")
    verdict.measured["deaths"] = {"workers": deaths, "files": files, "scrape_s": round(found.seconds, 4)}


def _noise(rng: random.Random) -> str:
    alphabet = string.ascii_letters + string.digits + "-._~%/?&=+"
    return "".join(rng.choice(alphabet) for _ in range(rng.randrange(1, 60))).replace("%", "%0a")


def _request(rng: random.Random, method: str, path: str) -> bytes:
    headers = "".join(f"x-{_noise(rng).encode().hex()[:20]}: {_noise(rng)}\r\n" for _ in range(rng.randrange(4)))
    return f"{method} {path} HTTP/1.1\r\nhost: x\r\n{headers}content-length: 0\r\nconnection: close\r\n\r\n".encode()


def _ask(port: int, request: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as one, suppress(ConnectionError):
        one.sendall(request)
        while one.recv(65536):
            pass
