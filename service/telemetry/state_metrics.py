"""Expose models, devices and jobs: which serve, since when, and how they ended."""

from collections.abc import Iterable
from datetime import UTC, datetime, time
from typing import NamedTuple

from msgspec import UNSET
from prometheus_client import Counter, Gauge

from models.artifact.manifest import Manifest
from models.runtime.device import CPU_PROVIDER, CUDA_PROVIDER, Device
from service.telemetry.build_info import build_info
from service.telemetry.fast_values import MmapCounters, MmapGauge
from service.telemetry.metrics_storage import require_room

ACTIVATED, ROLLED_BACK, REFUSED = ACTIVATIONS = ("activated", "rolled_back", "refused")
JOB_OUTCOMES = ("done", "failed", "cancelled")
JOB_ROWS = ("ok", "error")
JOB_STATES = ("queued", "running", "paused", "paused_no_space")

require_room()

_ACTIVATIONS = Counter("lectern_activations_total", "Versions that were to go live.", ["model", "outcome"])
_MISMATCHES = Counter(
    "lectern_artifact_mismatches_total", "Artifacts that were not what their certificates say.", ["model"]
)
_MODEL = Gauge(
    "lectern_model_loaded",
    "1 for each version of a model that serves, 0 for one that did.",
    ["model", "version", "digest", "provider"],
    multiprocess_mode="livemax",
)
_INSTALLED = Gauge(
    "lectern_model_installed_timestamp_seconds",
    "When the version that serves came into the model store; 0 if that is not known.",
    ["model"],
    multiprocess_mode="livemax",
)
_TRAINED = Gauge(
    "lectern_model_trained_timestamp_seconds",
    "The day the version that serves was trained; 0 if its certificate does not say.",
    ["model"],
    multiprocess_mode="livemax",
)
_CERTIFICATE = Gauge(
    "lectern_tls_certificate_expiry_timestamp_seconds",
    "When the served TLS certificate, or one of its chain, stops being valid; only with TLS.",
    ["serial"],
    multiprocess_mode="livemin",
)
SLOTS = Gauge(
    "lectern_slots",
    "Micro-batches that may compute at once beside the event loop, in all workers.",
    ["pool"],
    multiprocess_mode="livesum",
)
SLOT_SECONDS = Counter("lectern_slot_busy_seconds_total", "Time that slots were taken.", ["pool"])
_DEVICE = Gauge(
    "lectern_device_info",
    "1 where models compute: the device that is set, and the execution provider they really have.",
    ["device", "provider"],
    multiprocess_mode="livemax",
)
_BUILD = Gauge(
    "lectern_build_info",
    "1, with the version and commit of Lectern and the versions of what it runs on.",
    ["version", "commit", "python", "onnxruntime", "bentoml"],
    multiprocess_mode="livemax",
)
_JOBS = Counter("lectern_jobs_total", "Jobs, by how they ended.", ["outcome"])
_JOB_ROWS = Counter("lectern_job_rows_total", "Rows of jobs, by how they came out, as they are scored.", ["outcome"])
_JOBS_ACTIVE = Gauge(
    "lectern_jobs_active", "Jobs that are not finished, by state.", ["state"], multiprocess_mode="livesum"
)
_JOB_PROGRESS = Gauge(
    "lectern_job_progress_timestamp_seconds",
    "When the running job that has stood still longest last got on; 0 when none runs.",
    multiprocess_mode="livemax",
)


def initialise(models: Iterable[tuple[Manifest, str]], device: Device) -> None:
    """Create every series once, so that a rate over a new one is never missing its first step.

    Args:
        models: That serve, with their execution providers.
        device: That they were to compute on.
    """
    providers = set()
    for manifest, provider in models:
        providers.add(provider)
        MmapCounters(_ACTIVATIONS, ACTIVATIONS, model=manifest.model)
        MmapGauge(_MISMATCHES, model=manifest.model)
    for provider in (CPU_PROVIDER, CUDA_PROVIDER):
        MmapGauge(_DEVICE, device=device, provider=provider).set(provider in providers)
    MmapGauge(_BUILD, **build_info()).set(1)
    MmapCounters(_JOBS, JOB_OUTCOMES)
    MmapCounters(_JOB_ROWS, JOB_ROWS)
    show_jobs({}, 0.0)


def show_model(manifest: Manifest, provider: str, *, is_live: bool, installed: float = 0.0) -> None:
    """Show whether a version serves; one that did stays, at 0.

    Args:
        manifest: Its certificate.
        provider: Where it computes.
        is_live: Whether it serves.
        installed: When it came into the store, seconds since 1970.
    """
    series = MmapGauge(
        _MODEL, model=manifest.model, version=manifest.version, digest=manifest.digest[:12], provider=provider
    )
    series.set(is_live)
    if is_live:
        MmapGauge(_INSTALLED, model=manifest.model).set(installed)
        day = manifest.training.trained
        trained = 0.0 if day is UNSET else datetime.combine(day, time(), UTC).timestamp()
        MmapGauge(_TRAINED, model=manifest.model).set(trained)


class ServedCertificate(NamedTuple):
    """Describe which certificate callers see, and until when they take it.

    Attributes:
        serial: Of the server's own certificate, in hexadecimal digits.
        expires: The first end among it and its chain, seconds since 1970.
    """

    serial: str
    expires: float


def show_certificate(served: ServedCertificate) -> None:
    """Say until when the certificate holds that this process serves."""
    MmapGauge(_CERTIFICATE, serial=served.serial).set(served.expires)


def count_activation(model: str, outcome: str) -> None:
    """Note what became of a version that was to go live."""
    MmapGauge(_ACTIVATIONS, model=model, outcome=outcome).add()


def count_mismatch(model: str) -> None:
    """Note an artifact that is not what its certificate says."""
    MmapGauge(_MISMATCHES, model=model).add()


def count_job(outcome: str) -> None:
    """Note the end of one job."""
    MmapGauge(_JOBS, outcome=outcome).add()


def count_rows(rows: int, errors: int) -> None:
    """Note that jobs have got on by so many rows, so many of them with errors."""
    MmapGauge(_JOB_ROWS, outcome="ok").add(rows - errors)
    MmapGauge(_JOB_ROWS, outcome="error").add(errors)


def show_jobs(active: dict[str, int], progress_at: float) -> None:
    """Show the jobs by state, and when the slowest of those that run last got on, seconds since 1970."""
    for state in JOB_STATES:
        MmapGauge(_JOBS_ACTIVE, state=state).set(active.get(state, 0))
    MmapGauge(_JOB_PROGRESS).set(progress_at)
