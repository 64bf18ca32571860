"""Read a deployment's settings: one frozen object, read once from ``LECTERN_*``."""

import os
from collections.abc import Iterator, Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Annotated

import msgspec
from msgspec import Meta

from models.artifact.manifest import Manifest
from models.errors import SettingsError
from models.runtime.device import Compute, ConvolutionSearch, Device, Padding, has_cuda
from service.settings.variables import read_variables

PREFIX = "LECTERN_"
LEAST_PER_SECOND, MOST_PER_SECOND = 0.001, 1_000_000
# Whose largest part would never fit in: such a request would be told to try again for ever.
ROOM = (("max_arriving_bytes", "max_body_bytes"), ("queue_limit", "max_instances"))


class Placement(StrEnum):
    """Describe where runners live: in the gateway's process, or each family in its own behind ``bentoml.depends()``."""

    AUTO = "auto"
    EMBEDDED = "embedded"
    PROCESS = "process"


class LogForm(StrEnum):
    """Describe how an event is written: for machines, or for people."""

    JSON = "json"
    TEXT = "text"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every setting with its unit and default; ``LECTERN_PORT=3001`` sets ``port``."""

    host: Annotated[str, Meta(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535, description="TCP port.")] = 3000
    device: Annotated[
        Device, Meta(description="`auto` (GPU when there is one), `cpu`, or `cuda` (an error without a GPU).")
    ] = Device.AUTO
    devices: Annotated[
        str, Meta(description="Comma-separated `model=auto`, `model=cpu` or `model=cuda`, for models that differ.")
    ] = ""
    gpu_tf32: Annotated[
        bool, Meta(description="Let a GPU round the factors of products to 10 bits; faster, and further from torch.")
    ] = False
    gpu_convolution_search: Annotated[
        ConvolutionSearch,
        Meta(description="How cuDNN chooses an algorithm: `heuristic`, `default` (always the same) or `exhaustive`."),
    ] = ConvolutionSearch.HEURISTIC
    gpu_memory_bytes: Annotated[
        Annotated[int, Meta(ge=2**24)] | None,
        Meta(description="Most memory of a GPU that each model's arena takes, bytes; empty: no limit."),
    ] = None
    gpu_leaves_to_cpu: Annotated[
        bool, Meta(description="Let operators that a GPU has no kernel for run on the CPU; `false`: an error.")
    ] = False
    padding: Annotated[
        Padding,
        Meta(description="Batches filled up to a power of two: `auto` (those on a GPU), `always` or `never`."),
    ] = Padding.AUTO
    runners: Annotated[Placement, Meta(description="`embedded`, `process`, or `auto` (`process` on a GPU).")] = (
        Placement.AUTO
    )
    workers: Annotated[int, Meta(ge=1, le=64, description="Gateway processes.")] = 1
    models: Annotated[
        str,
        Meta(description="Comma-separated `name` or `name:version`; empty: every model in the repository."),
    ] = ""
    data: Annotated[str, Meta(description="Folder of datasets, for training and tests; serving ignores it.")] = ""
    home: Annotated[
        str, Meta(description="Folder of what is downloaded, where `LECTERN_DATA` names none; serving ignores it.")
    ] = ""
    threads: Annotated[
        Annotated[int, Meta(ge=1, le=256)] | None,
        Meta(description="Micro-batches computed at once per process; empty: its share of the cores."),
    ] = None
    wire: Annotated[
        bool, Meta(description="Answer predictions below ASGI; `false` is slower and otherwise the same.")
    ] = True
    max_body_bytes: Annotated[int, Meta(ge=1024, description="Longest request body, bytes.")] = 16 * 2**20
    max_arriving_bytes: Annotated[
        int, Meta(ge=1024, description="Long bodies that arrive or wait to be read, bytes per process; beyond it 503.")
    ] = 32 * 2**20
    max_instances: Annotated[int, Meta(ge=1, description="Most instances in one request.")] = 1024
    queue_limit: Annotated[
        int, Meta(ge=1, description="Most instances waiting per model; more are refused with 503.")
    ] = 4096
    queue_seconds: Annotated[
        float,
        Meta(gt=0, description="Longest expected wait for a turn, seconds; beyond it requests are refused with 503."),
    ] = 1.0
    keep_alive_seconds: Annotated[
        float,
        Meta(gt=0, description="How long an idle connection is kept, seconds; longer than balancers do."),
    ] = 75.0
    max_connections: Annotated[
        int, Meta(ge=1, description="Most connections per process; one more, and the longest idle ones are closed.")
    ] = 4096
    body_timeout_seconds: Annotated[float, Meta(gt=0, description="Time a body may take to arrive, seconds.")] = 10.0
    request_timeout_seconds: Annotated[
        float, Meta(gt=0, description="Time from a whole body to its answer, seconds; later is a 504.")
    ] = 30.0
    keys: Annotated[str, Meta(description="API keys, as `LECTERN_KEYS_FILE` has them, parted by `;`.")] = ""
    keys_file: Annotated[
        str, Meta(description="File of API keys, one a line, read again when it changes; empty with `keys`: no keys.")
    ] = ""
    requests_per_second: Annotated[
        Annotated[float, Meta(ge=LEAST_PER_SECOND, le=MOST_PER_SECOND)] | None,
        Meta(description="Requests per second of each key without a limit of its own, or without keys each address."),
    ] = None
    tls_certificate: Annotated[str, Meta(description="PEM file of the server's certificate and its chain.")] = ""
    tls_key: Annotated[str, Meta(description="PEM file of the certificate's private key.")] = ""
    trusted_keys: Annotated[
        str,
        Meta(description="Comma-separated public keys, base64 or files; only artifacts they signed are served."),
    ] = ""
    jobs_root: Annotated[
        str, Meta(description="Folder below which the inputs of jobs lie; it is only read. Empty: no jobs.")
    ] = ""
    jobs_queued: Annotated[int, Meta(ge=1, description="Most jobs that are not finished; more are refused.")] = 100
    jobs_running: Annotated[
        int, Meta(ge=1, le=64, description="Most jobs that run at once; one key, half of them.")
    ] = 2
    jobs_workers: Annotated[int, Meta(ge=1, le=256, description="Processes of one running job.")] = 1
    jobs_upload_bytes: Annotated[int, Meta(ge=1024, description="Longest uploaded input of a job, bytes.")] = 2**30
    jobs_memory_bytes: Annotated[
        int,
        Meta(ge=2**28, description="Most memory of each process of a job, bytes; not held to where a GPU computes."),
    ] = 768 * 2**20
    jobs_seconds: Annotated[float, Meta(gt=0, description="How long a job may run, seconds; longer, and it fails.")] = (
        86400.0
    )
    jobs_rows: Annotated[int, Meta(ge=1, description="Most rows of a job's input; with more it fails.")] = 10**8
    jobs_output_bytes: Annotated[
        int, Meta(ge=1024, description="Most bytes of a job's scored parts together; with more it fails.")
    ] = 2**36
    jobs_keep_seconds: Annotated[
        float, Meta(gt=0, description="How long a finished job and its result are kept, seconds.")
    ] = 604800.0
    log_requests: Annotated[
        float, Meta(ge=0, le=1, description="Part of the requests to models that the log tells of, 0 to 1.")
    ] = 0.0
    traces: Annotated[
        str, Meta(description="OpenTelemetry's exporter of traces, e.g. `otlp_proto_http` or `console`; empty: none.")
    ] = ""
    demo: Annotated[bool, Meta(description="Serve a page to try every model with, at `/demo/`.")] = False
    log: Annotated[LogForm, Meta(description="`json` (an object per line) or `text`, on standard error.")] = (
        LogForm.JSON
    )

    def contradictions(self) -> Iterator[str]:
        """Yield one sentence for each setting that no type can check, and for each two that do not fit together."""
        for entry in _entries(self.devices):
            if entry.partition("=")[2] not in set(Device):
                yield f"LECTERN_DEVICES: {entry!r} is not model=auto, model=cpu or model=cuda"
        if bool(self.tls_certificate) is not bool(self.tls_key):
            yield "LECTERN_TLS_CERTIFICATE and LECTERN_TLS_KEY are set together or not at all"
        for whole, part in ROOM:
            if getattr(self, whole) < getattr(self, part):
                room, need = PREFIX + whole.upper(), PREFIX + part.upper()
                yield f"{room} must be at least {need}, {getattr(self, part)}, got {getattr(self, whole)}"

    @property
    def uses_cuda(self) -> bool:
        """Return whether any session is asked to run on a GPU."""
        wanted = {self.device, *self.chosen_devices.values()}
        return Device.CUDA in wanted or (Device.AUTO in wanted and has_cuda())

    @property
    def chosen_devices(self) -> dict[str, Device]:
        """Return the entries of ``devices``, by model."""
        entries = (entry.partition("=") for entry in _entries(self.devices))
        return {model: Device(device) for model, _, device in entries}

    def device_for(self, manifest: Manifest) -> Device:
        """Return where a model computes: as its own setting says, then the service's, then what export measured."""
        chosen = self.chosen_devices.get(manifest.model, self.device)
        is_better_off = manifest.device is not None and manifest.device.chosen == "cpu"
        return Device.CPU if chosen is Device.AUTO and (is_better_off or not has_cuda()) else chosen

    def compute_on(self, device: Device, device_id: int = 0) -> Compute:
        """Return how a session there computes."""
        return Compute(
            device=device,
            device_id=device_id,
            uses_tf32=self.gpu_tf32,
            search=self.gpu_convolution_search,
            memory_bytes=self.gpu_memory_bytes,
            allows_cpu=self.gpu_leaves_to_cpu,
            padding=self.padding,
        )

    @property
    def placement(self) -> Placement:
        """``runners`` with ``auto`` decided."""
        if self.runners is not Placement.AUTO:
            return self.runners
        return Placement.PROCESS if self.uses_cuda else Placement.EMBEDDED

    @property
    def lanes(self) -> int:
        """``threads``, or the cores this process may use divided among the workers."""
        return self.threads or max(1, len(os.sched_getaffinity(0)) // self.workers)

    @property
    def wanted_models(self) -> tuple[str, ...]:
        """Return the entries of ``models``."""
        return _entries(self.models)

    @property
    def trusted_entries(self) -> tuple[str, ...]:
        """Return the entries of ``trusted_keys``."""
        return _entries(self.trusted_keys)

    @property
    def pinned_models(self) -> frozenset[str]:
        """Names of the models whose version ``models`` names."""
        return frozenset(entry.split(":")[0] for entry in self.wanted_models if ":" in entry)


def _entries(text: str) -> tuple[str, ...]:
    return tuple(entry.strip() for entry in text.split(",") if entry.strip())


def parse(environment: Mapping[str, str]) -> Settings:
    """Settings from variables.

    Raises:
        SettingsError: If a ``LECTERN_`` variable is unknown, its value does not fit, or two do not fit together; all
            of it is said at once.
    """
    fields, faults = read_variables(Settings, PREFIX, environment)
    found = Settings(**fields)
    faults += found.contradictions()
    if faults:
        raise SettingsError("; ".join(faults))
    return found


@lru_cache(maxsize=1)
def settings() -> Settings:
    """This process's settings, read on first use."""
    return parse(os.environ)


def log_form() -> LogForm:
    """Return how this process logs, known even when another setting does not fit."""
    try:
        return LogForm(os.environ.get(f"{PREFIX}LOG", LogForm.JSON))
    except ValueError:
        return LogForm.JSON
