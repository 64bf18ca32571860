"""Record single requests, in the log and to a collector of traces: both off unless a setting says otherwise.

A request is told of at its end, from the times its stages noted on the way; nothing is kept of one that is not told.
"""

import os
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import entry_points
from time import monotonic, time_ns
from typing import Any, NamedTuple

from models.errors import SettingsError
from service.settings import Settings
from service.telemetry.logs import Document, write_event

SCOPE, PARENT = "lectern", b"traceparent"
_GROUP = "opentelemetry_traces_exporter"
_BILLION = 1_000_000_000


class RequestTimes:
    """Describe when one request was where on its way, on the monotonic clock; 0 where it has not been.

    Attributes:
        request_id: What the log calls it.
        parent: Of its trace, as ``traceparent`` names it.
        started: When its body was whole.
        queued: When its samples began to wait.
        begun: When its first micro-batch began, as the next two only where requests are told of.
        inferring: How long its runs took, seconds.
        ready: When the outputs of its last micro-batch were there.
    """

    parent = b""
    started = queued = begun = inferring = ready = 0.0

    def __init__(self, request_id: bytes = b"") -> None:
        self.request_id = request_id


class RequestStage(NamedTuple):
    """One part of a request's time, on the monotonic clock."""

    name: str
    began: float
    ended: float


class RequestTracer:
    """Tells of requests that have ended.

    Args:
        share: Part of them that the log is told of, 0 to 1.
        tracer: Of OpenTelemetry, where traces are wanted.
        write: Takes an event.
    """

    def __init__(self, share: float, tracer: Any = None, write: Callable[[Document], object] = write_event) -> None:
        self._share, self._tracer, self._write = share, tracer, write

    def record(self, model: str, tag: str, request: RequestTimes, outcome: str) -> None:
        """A request has ended so.

        Args:
            model: Its model's name.
            tag: The same with the version.
            request: The request.
            outcome: As ``lectern_requests_total`` has it.
        """
        now = monotonic()
        if self._share and random.random() < self._share:  # noqa: S311  no secret
            self._log(tag, request, outcome, now)
        if self._tracer is not None:
            self._trace(model, tag, request, outcome, now)

    def _log(self, tag: str, request: RequestTimes, outcome: str, now: float) -> None:
        event: Document = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": "INFO",
            "logger": "lectern.requests",
            "pid": os.getpid(),
            "message": f"{tag} {outcome}",
            "event": "request",
            "model": tag,
            "outcome": outcome,
            "request_id": request.request_id.decode(),
        }
        for stage in stages(request, now):
            event[f"{stage.name}_ms"] = _ms(stage.ended - stage.began)
        if request.started:
            event["total_ms"] = _ms(now - request.started)
        self._write(event)

    def _trace(self, model: str, tag: str, request: RequestTimes, outcome: str, now: float) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        offset = time_ns() - int(now * _BILLION)
        parent = TraceContextTextMapPropagator().extract({"traceparent": request.parent.decode("latin-1")})
        told = {"lectern.model": tag, "lectern.outcome": outcome, "lectern.request_id": request.request_id.decode()}
        began = offset + int((request.started or now) * _BILLION)
        span = self._tracer.start_span(f"predict {model}", parent, SpanKind.SERVER, told, start_time=began)
        if span.is_recording():
            within = set_span_in_context(span)
            for stage in stages(request, now):
                part = self._tracer.start_span(stage.name, within, start_time=offset + int(stage.began * _BILLION))
                part.end(offset + int(stage.ended * _BILLION))
        if outcome in ("internal", "runner_failed"):
            span.set_status(Status(StatusCode.ERROR))
        span.end(offset + int(now * _BILLION))


def stages(request: RequestTimes, now: float) -> Iterator[RequestStage]:
    """The stages a request has been through."""
    if request.queued:
        yield RequestStage("encode", request.started, request.queued)
    if request.begun:
        yield RequestStage("queue", request.queued, request.begun)
    if request.ready:
        yield RequestStage("infer", request.ready - request.inferring, request.ready)
        yield RequestStage("decode", request.ready, now)


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)


@lru_cache(maxsize=1)
def open_tracer(settings: Settings) -> RequestTracer | None:
    """Return what tells of requests, by these settings; ``None`` when nobody wants to know.

    Raises:
        SettingsError: If there is no such exporter.
    """
    if not settings.log_requests and not settings.traces:
        return None
    return RequestTracer(settings.log_requests, _tracer(settings.traces) if settings.traces else None)


def find_exporter(name: str) -> Any:
    """OpenTelemetry's exporter of that name; ``None`` where none is wanted.

    Raises:
        SettingsError: If none of that name is installed.
    """
    if not name:
        return None
    found = [*entry_points(group=_GROUP, name=name)]
    if not found:
        known = ", ".join(sorted(entry.name for entry in entry_points(group=_GROUP)))
        raise SettingsError(f"LECTERN_TRACES: no exporter {name} is installed; there are: {known}")
    return found[0].load()


def _tracer(name: str) -> Any:
    """Return a tracer of OpenTelemetry's own; what else it needs to know it reads from its ``OTEL_*`` variables."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": SCOPE}))
    provider.add_span_processor(BatchSpanProcessor(find_exporter(name)()))
    return provider.get_tracer(SCOPE)
