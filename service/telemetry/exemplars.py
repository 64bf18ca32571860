"""Requests to look at: for each bucket of a histogram one that fell into it lately, by its request id and trace.

They are kept in the process that answered, and a scrape shows those of the worker that it reached: strings have no
place in the files that the processes share, and an exemplar is an example, not a count.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Exemplar(NamedTuple):
    """One request.

    Attributes:
        request_id: As its answer named it.
        parent: Its ``traceparent``, where requests are told of; else empty.
        seconds: That it took.
        at: When it ended, seconds since 1970.
    """

    request_id: bytes
    parent: bytes
    seconds: float
    at: float

    @property
    def labels(self) -> dict[str, str]:
        """What it is found by; OpenMetrics allows 128 characters, and the longest request id leaves 14 of them."""
        return {"request_id": self.request_id.decode(), **(_trace(self.parent) if self.parent else {})}


class Exemplars:
    """Those of one series of a histogram, by the bucket's number."""

    def __init__(self, name: str, bounds: Sequence[float], **labels: str) -> None:
        self._bounds = bounds
        self.latest: dict[int, tuple[bytes, bytes, float, float]] = {}
        _KEPT[name, frozenset(labels.items())] = self

    def note(self, request_id: bytes, parent: bytes, seconds: float, at: float) -> None:
        """Keep a request until another one falls into its bucket."""
        self.latest[bisect_left(self._bounds, seconds)] = (request_id, parent, seconds, at)


_KEPT: dict[tuple[str, frozenset[tuple[str, str]]], Exemplars] = {}


def find_exemplars(name: str, labels: Mapping[str, str]) -> Mapping[int, Exemplar]:
    """This process's exemplars of a series."""
    kept = _KEPT.get((name, frozenset(labels.items())))
    return {} if kept is None else {number: Exemplar(*one) for number, one in kept.latest.items()}


def _trace(parent: bytes) -> dict[str, str]:
    from opentelemetry.trace import format_trace_id, get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract({"traceparent": parent.decode("latin-1")})
    span = get_current_span(context).get_span_context()
    return {"trace_id": format_trace_id(span.trace_id)} if span.is_valid else {}
