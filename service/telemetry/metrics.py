"""Declare Lectern's own metrics, with closed label sets initialised at start."""

from prometheus_client import Counter, Gauge, Histogram

from service.telemetry.metrics_storage import require_room

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
# Why nothing of a request was begun, by ``HttpError.refusal``.
REFUSALS = ("queue_full", "long_wait", "too_late", "body_memory", "rate_limited", "draining")
# Why a sample never reaches the model.
LATE, ABANDONED, BROKEN = "late", "abandoned", "broken"
EXPIRED = (LATE, ABANDONED, BROKEN)
STAGES = ("encode", "queue", "infer", "decode")

require_room()  # before the first metric makes its file

LATENCY_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

REQUESTS = Counter("lectern_requests_total", "Requests to a model, by how they ended.", ["model", "version", "outcome"])
LATENCY = Histogram(
    "lectern_request_seconds", "From the whole body to the answer.", ["model", "version"], buckets=LATENCY_BUCKETS
)
IN_FLIGHT = Gauge(
    "lectern_requests_in_flight",
    "Requests to a model whose headers are here and that have not ended, in all workers.",
    ["model"],
    multiprocess_mode="livesum",
)
REQUEST_BYTES = Counter(
    "lectern_request_body_bytes_total", "Bodies of requests to a model that arrived whole and were read.", ["model"]
)
RESPONSE_BYTES = Counter(
    "lectern_response_body_bytes_total", "Bodies of a model's answers that are no errors.", ["model"]
)
STAGE = Histogram(
    "lectern_stage_seconds",
    "Encode: from the whole body to the queue. For each micro-batch that a request is in, queue: until it began, "
    "infer: its run, decode: an equal share of the time from its outputs to its answers.",
    ["model", "stage"],
    buckets=LATENCY_BUCKETS,
)
BATCH = Histogram(
    "lectern_batch_instances", "Instances in a micro-batch.", ["model"], buckets=(1, 2, 4, 8, 16, 32, 64, 128)
)
FILL = Histogram(
    "lectern_batch_fill_ratio",
    "Part of the budget that a micro-batch takes; above 1 for one instance larger than the budget.",
    ["model"],
    buckets=SHARES,
)
PADDING = Histogram(
    "lectern_batch_padding_ratio", "Part of a micro-batch that is padding, of padded models.", ["model"], buckets=SHARES
)
COMPUTE = Counter(
    "lectern_compute_seconds_total", "Time that a model's micro-batches took of the execution slots.", ["model"]
)
WAITING = Gauge(
    "lectern_queue_instances", "Instances that wait, in all workers.", ["model"], multiprocess_mode="livesum"
)
LIMIT = Gauge(
    "lectern_queue_limit_instances", "Instances that may wait, in all workers.", ["model"], multiprocess_mode="livesum"
)
LAST = Gauge(
    "lectern_last_batch_timestamp_seconds",
    "When a model's last micro-batch had become answers; 0 before the first.",
    ["model"],
    multiprocess_mode="livemax",
)
EXPIRED_TOTAL = Counter(
    "lectern_expired_instances_total",
    "Instances dropped before they ran: too late, abandoned by the caller, or of a request that another part broke.",
    ["model", "reason"],
)
REFUSALS_TOTAL = Counter(
    "lectern_refusals_total", "Requests refused for want of room or time, by why.", ["model", "reason"]
)
