"""What is told of single requests: a line each and a trace each, only where somebody asked, and nothing forged."""

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from models.errors import SettingsError
from service.settings import Settings
from service.telemetry.logs import to_json
from service.telemetry.tracing import RequestTimes, RequestTracer, find_exporter, open_tracer

STAGES = ("encode_ms", "queue_ms", "infer_ms", "decode_ms", "total_ms")
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADER = f"traceparent: 00-{TRACE}-{PARENT}-01\r\n".encode()
PATH = b"/v1/models/double/predict"
Run = Callable[..., None]


def request(body: bytes, *headers: bytes) -> bytes:
    more = b"".join(headers)
    head = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n"
    return head % (PATH, more, len(body)) + body


def events(text: str) -> list[dict[str, Any]]:
    """Return the lines of requests on standard error."""
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("event") == "request"]


@pytest.mark.parametrize("is_wire", [True, False], ids=["wire", "front"])
def test_one_line_each(is_wire: bool, serve: Any, run: Run, capfd: Any) -> None:
    """An answered, a wrong and a refused request are one line each, with the stages they have been through."""

    async def work() -> None:
        async with serve(wire=is_wire, log_requests=1.0, max_body_bytes=2048) as live:
            client = await live.connect()
            await client.ask(request(b'{"instances": [3]}', b"x-request-id: mine-1\r\n"))
            await client.ask(request(b"{", b'x-request-id: "},{"event": "forged"}\r\n'))
            await client.ask(request(b" " * 4096))

    run(work)
    told = events(capfd.readouterr().err)
    assert [one["outcome"] for one in told] == ["ok", "malformed_request", "body_too_large"]
    assert {one["model"] for one in told} == {"double:1.0.0"}
    good, *refused = told
    assert good["request_id"] == "mine-1"
    assert all(good[name] >= 0 for name in STAGES)
    assert sum(good[name] for name in STAGES[:-1]) == pytest.approx(good["total_ms"], abs=1.0)
    for one in refused:
        assert not {*STAGES[:-1]} & one.keys()
        assert "forged" not in json.dumps(one)


def test_none_unless_asked(serve: Any, run: Run, capfd: Any) -> None:
    """By default nothing is told, and no request notes its times."""
    assert open_tracer(Settings()) is None

    async def work() -> None:
        async with serve() as live:
            await (await live.connect()).ask(request(b'{"instances": [3]}'))
            assert not any(one.batcher.is_traced for one in live.front.gateway.endpoints.values())

    run(work)
    assert events(capfd.readouterr().err) == []


def test_some(monkeypatch: pytest.MonkeyPatch) -> None:
    """A share is a share."""
    told: list[Any] = []
    trail, draws = RequestTracer(0.25, write=told.append), iter([0.0, 0.24, 0.25, 0.9])
    monkeypatch.setattr("service.telemetry.tracing.random.random", lambda: next(draws))
    for _ in range(4):
        trail.record("m", "m:1", RequestTimes(), "ok")
    assert len(told) == 2


def test_nothing_is_forged() -> None:
    """Whatever stood in a request's id would stay on its line."""
    told: list[Any] = []
    pending = RequestTimes()
    pending.request_id = b'x"}\n{"event": "request"}\r\x1b[31m'
    RequestTracer(1.0, write=told.append).record("m", "m:1", pending, "ok")
    line = to_json(told[0])
    assert line.count(b"\n") == 1
    assert b"\x1b" not in line
    assert json.loads(line)["request_id"] == pending.request_id.decode()


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What a collector would get."""
    kept, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    trail = RequestTracer(0.0, provider.get_tracer("test"))
    monkeypatch.setattr("service.inference.endpoint.open_tracer", lambda settings: trail)
    return kept


@pytest.mark.parametrize("is_wire", [True, False], ids=["wire", "front"])
def test_a_trace_each(is_wire: bool, serve: Any, run: Run, exporter: InMemorySpanExporter) -> None:
    """A span of the caller's trace, with its stages one after another inside it."""

    async def work() -> None:
        async with serve(wire=is_wire) as live:
            client = await live.connect()
            await client.ask(request(b'{"instances": [3]}', HEADER))
            await client.ask(request(b"{", b"traceparent: nonsense\r\n"))

    run(work)
    *parts, good, bad = exporter.get_finished_spans()
    assert [part.name for part in parts] == ["encode", "queue", "infer", "decode"]
    assert (good.name, bad.name) == ("predict double", "predict double")
    assert f"{good.context.trace_id:032x}" == TRACE
    assert f"{good.parent.span_id:016x}" == PARENT
    assert bad.parent is None
    assert good.attributes["lectern.outcome"] == "ok"
    assert bad.attributes["lectern.outcome"] == "malformed_request"
    for before, after in pairwise(parts):
        assert good.start_time <= before.start_time <= before.end_time <= after.end_time <= good.end_time
    assert all(part.parent.span_id == good.context.span_id for part in parts)


def test_exporters() -> None:
    """The one that comes with OpenTelemetry is found; a name that is not installed is one line at the start."""
    assert find_exporter("") is None
    assert find_exporter("console") is not None
    with pytest.raises(SettingsError, match="no exporter carrier-pigeon is installed; there are: console"):
        find_exporter("carrier-pigeon")
