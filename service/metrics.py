"""What Prometheus sees of Lectern itself, with closed label sets initialised at start."""

from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

from models.manifest import Manifest

OUTCOMES = (
    "ok",
    "malformed_request",
    "method_not_allowed",
    "request_timeout",
    "body_too_large",
    "unsupported_media_type",
    "invalid_request",
    "runner_failed",
    "overloaded",
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
    "Models being served; the value is 1.",
    ["model", "version", "digest", "provider"],
    multiprocess_mode="livemax",
)


def initialise(models: Iterable[tuple[Manifest, str]]) -> None:
    """Create every series once, so that a rate over a new one is never missing its first step."""
    for manifest, provider in models:
        MODEL.labels(manifest.model, manifest.version, manifest.digest[:12], provider).set(1)
        LATENCY.labels(manifest.model)
        BATCH.labels(manifest.model)
        for outcome in OUTCOMES:
            REQUESTS.labels(manifest.model, outcome)
