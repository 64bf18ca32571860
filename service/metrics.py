"""What Prometheus sees of Lectern itself, with closed label sets initialised at start."""

import asyncio
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

from models.manifest import Manifest

OUTCOMES = (
    "ok",
    "malformed_request",
    "unauthenticated",
    "forbidden",
    "method_not_allowed",
    "request_timeout",
    "body_too_large",
    "unsupported_media_type",
    "invalid_request",
    "rate_limited",
    "runner_failed",
    "overloaded",
    "draining",
    "deadline_exceeded",
    "disconnected",
    "internal",
)
LATENCY_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip

REQUESTS = Counter("lectern_requests_total", "Requests to a model, by how they ended.", ["model", "outcome"])
LATENCY = Histogram("lectern_request_seconds", "From the whole body to the answer.", ["model"], buckets=LATENCY_BUCKETS)
BATCH = Histogram(
    "lectern_batch_instances", "Instances in a micro-batch.", ["model"], buckets=(1, 2, 4, 8, 16, 32, 64, 128)
)
MODEL = Gauge(
    "lectern_model_loaded",
    "1 for each version of a model that serves, 0 for one that did.",
    ["model", "version", "digest", "provider"],
    multiprocess_mode="livemax",
)

JOBS = Counter("lectern_jobs_total", "Jobs, by how they ended.", ["outcome"])
JOB_ROWS = Counter("lectern_job_rows_total", "Rows of jobs that ended, by how they came out.", ["outcome"])
JOB_OUTCOMES = ("done", "failed", "cancelled")


def initialise(models: Iterable[tuple[Manifest, str]]) -> None:
    """Create every series once, so that a rate over a new one is never missing its first step."""
    for manifest, provider in models:
        show_model(manifest, provider, is_live=True)
        LATENCY.labels(manifest.model)
        BATCH.labels(manifest.model)
        for outcome in OUTCOMES:
            REQUESTS.labels(manifest.model, outcome)
    for outcome in JOB_OUTCOMES:
        JOBS.labels(outcome)
    for outcome in ("ok", "error"):
        JOB_ROWS.labels(outcome)


def count_job(outcome: str, rows: int = 0, errors: int = 0) -> None:
    """Note the end of one job."""
    JOBS.labels(outcome).inc()
    JOB_ROWS.labels("ok").inc(rows - errors)
    JOB_ROWS.labels("error").inc(errors)


def show_model(manifest: Manifest, provider: str, *, is_live: bool) -> None:
    """Whether a version serves; one that did stays, at 0."""
    MODEL.labels(manifest.model, manifest.version, manifest.digest[:12], provider).set(is_live)


class Ledger:
    """Counts how one model's requests ended and how long they took.

    Prometheus gets the sums once per turn of the event loop, in the turn the answers are written: with several workers
    each of its counters is a write to a file that all of them share.
    """

    def __init__(self, model: str) -> None:
        self._model, self._seconds = model, LATENCY.labels(model)
        self._outcomes: dict[str, int] = {}
        self._latencies: list[float] = []

    def count(self, outcome: str, seconds: float | None = None) -> None:
        """Note the end of one request, and the time it took if it was answered."""
        if not self._outcomes:
            asyncio.get_running_loop().call_soon(self.flush)
        self._outcomes[outcome] = self._outcomes.get(outcome, 0) + 1
        if seconds is not None:
            self._latencies.append(seconds)

    def flush(self) -> None:
        """Hand everything noted to Prometheus."""
        outcomes, latencies = self._outcomes, self._latencies
        self._outcomes, self._latencies = {}, []
        for outcome, number in outcomes.items():
            REQUESTS.labels(self._model, outcome).inc(number)
        observe_all(self._seconds, latencies)


def observe_all(histogram: Histogram, amounts: list[float]) -> None:
    """What ``histogram.observe`` does, for many amounts at the price of one per bucket."""
    if not amounts:
        return
    bounds = histogram._upper_bounds
    histogram._sum.inc(sum(amounts))
    for bucket, number in Tally(bisect_left(bounds, amount) for amount in amounts).items():
        histogram._buckets[bucket].inc(number)
