"""What is counted of requests and micro-batches, and what by: each once, by its reason."""

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from msgspec import UNSET
from msgspec.structs import replace
from prometheus_client import REGISTRY

from models.budget import Budget
from models.errors import DeadlineExceeded, Draining, Overloaded, RateLimited, RunnerFailed
from models.runtime.device import Device
from models.runtime.session import Session
from service.inference.measurements import AnsweredTimes, BatchMeter, RequestCounters, RunTimes
from service.inference.request_queue import PendingRequest, QueuedSample
from service.messages.body_memory import too_many_bodies_in_flight
from service.telemetry.metrics import ABANDONED, BROKEN, EXPIRED, LATE, OUTCOMES, REFUSALS, STAGES
from service.telemetry.state_metrics import initialise, show_model
from service.telemetry.tracing import RequestTimes

MODEL, VERSION = "metered", "1.2.3"


def value(name: str, **labels: str) -> float:
    """Return a series now; it must be there."""
    versioned = {"version": VERSION} if name.startswith(("lectern_requests_total", "lectern_request_seconds")) else {}
    found = REGISTRY.get_sample_value(name, {"model": MODEL, **versioned, **labels})
    assert found is not None, (name, labels)
    return found


@pytest.fixture
def meter() -> BatchMeter:
    return BatchMeter(MODEL, VERSION, Budget(unit="tokens", batch=100, explained=1, is_padded=True), 64)


def entries(*costs: int, queued: float = 0.0) -> list[QueuedSample]:
    pending = PendingRequest()
    pending.times.queued = queued
    return [(pending, position, cost) for position, cost in enumerate(costs)]


def test_every_series_is_there_from_the_start(meter: BatchMeter) -> None:
    """Before the first request each outcome, reason, stage and bucket exists, at 0."""
    RequestCounters(MODEL, VERSION, meter.answered)
    for name, key, values in (
        ("lectern_requests_total", "outcome", OUTCOMES),
        ("lectern_refusals_total", "reason", REFUSALS),
        ("lectern_expired_instances_total", "reason", EXPIRED),
        ("lectern_stage_seconds_count", "stage", STAGES),
    ):
        for one in values:
            value(name, **{key: one})
    assert value("lectern_stage_seconds_bucket", stage="infer", le="0.0001") >= 0
    assert value("lectern_stage_seconds_bucket", stage="infer", le="10.0") >= 0
    assert value("lectern_queue_limit_instances") == 64


def test_initialise() -> None:
    """Jobs and the device have their series too; the provider that computes is 1, the other 0."""
    initialise([], Device.CPU)
    for state in ("queued", "running"):
        assert REGISTRY.get_sample_value("lectern_jobs_active", {"state": state}) == 0
    labels = {"device": "cpu", "provider": "CPUExecutionProvider"}
    assert REGISTRY.get_sample_value("lectern_device_info", labels) == 0


def test_a_batch(meter: BatchMeter) -> None:
    """Size, part of the budget, padding, and how long each request in it waited, once per request."""
    names = ("instances", "fill_ratio", "padding_ratio")
    before = {name: value(f"lectern_batch_{name}_sum") for name in names}
    waited, count = (value(f"lectern_stage_seconds_{part}", stage="queue") for part in ("sum", "count"))
    batch = [*entries(10, 20, queued=3.0), *entries(30, queued=4.0)]
    meter.begin(batch, 5.0)
    after = {name: value(f"lectern_batch_{name}_sum") - before[name] for name in names}
    assert after == pytest.approx({"instances": 3, "fill_ratio": 0.9, "padding_ratio": 1 - 60 / 90})
    assert value("lectern_stage_seconds_sum", stage="queue") - waited == pytest.approx(3.0)
    assert value("lectern_stage_seconds_count", stage="queue") - count == 2


def test_answered(meter: BatchMeter) -> None:
    """An answer is counted at once, and its time when its micro-batch ends."""
    ledger = RequestCounters(MODEL, VERSION, meter.answered)
    ok, count, total = (
        value("lectern_requests_total", outcome="ok"),
        value("lectern_request_seconds_count"),
        value("lectern_request_seconds_sum"),
    )
    ledger.answer(RequestTimes(), 0.5, 100)
    ledger.answer(RequestTimes(), 0.25, 11)
    assert value("lectern_requests_total", outcome="ok") == ok + 2
    meter.end(entries(1), RunTimes(1.0, 2.0))
    meter.end(entries(1), RunTimes(1.0, 2.0))
    assert value("lectern_request_seconds_count") == count + 2
    assert value("lectern_request_seconds_sum") == pytest.approx(total + 0.75)


def test_the_end_of_a_batch(meter: BatchMeter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request in it waited for the whole run; decoding is shared."""
    monkeypatch.setattr("service.inference.measurements.monotonic", lambda: 13.0)
    before = {(stage, part): value(f"lectern_stage_seconds_{part}", stage=stage)
              for stage in ("infer", "decode") for part in ("sum", "count")}  # fmt: skip
    meter.end([*entries(1, 1), *entries(1)], RunTimes(10.0, 12.0))
    found = {(stage, part): value(f"lectern_stage_seconds_{part}", stage=stage) - old
             for (stage, part), old in before.items()}  # fmt: skip
    assert found == {("infer", "sum"): 4.0, ("infer", "count"): 2, ("decode", "sum"): 1.0, ("decode", "count"): 2}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Overloaded("full"), "queue_full"),
        (too_many_bodies_in_flight(), "body_memory"),
        (RateLimited("often", 1.0), "rate_limited"),
        (Draining("end"), "draining"),
        (DeadlineExceeded("late"), None),
        (RunnerFailed("broken"), None),
    ],
    ids=lambda one: str(one),
)
def test_refusals(error: Any, reason: str | None) -> None:
    """A refusal is one outcome and one reason; an error that is none has no reason."""
    ledger = RequestCounters(MODEL, VERSION, AnsweredTimes())
    outcome = value("lectern_requests_total", outcome=error.code)
    reasons = {one: value("lectern_refusals_total", reason=one) for one in REFUSALS}
    ledger.refuse(error)
    assert value("lectern_requests_total", outcome=error.code) == outcome + 1
    for one in REFUSALS:
        assert value("lectern_refusals_total", reason=one) == reasons[one] + (one == reason)


@pytest.mark.parametrize("reason", [LATE, ABANDONED, BROKEN])
def test_expired(meter: BatchMeter, reason: str) -> None:
    """Each instance that never ran is counted by what became of its request."""
    before = {one: value("lectern_expired_instances_total", reason=one) for one in EXPIRED}
    dropped = entries(1, 1, 1)
    dropped[0][0].ended = reason
    meter.drop(dropped)
    for one in EXPIRED:
        assert value("lectern_expired_instances_total", reason=one) == before[one] + 3 * (one == reason)


def test_when_a_model_was_trained(shipped_session: Callable[[str], Session]) -> None:
    """The day its certificate says, at midnight UTC; 0 where it says none, as certificates of before."""
    manifest = replace(shipped_session("viewcount").manifest, model=MODEL)
    for day, seconds in ((date(2026, 3, 4), 1772582400.0), (UNSET, 0.0)):
        show_model(replace(manifest, training=replace(manifest.training, trained=day)), "none", is_live=True)
        assert value("lectern_model_trained_timestamp_seconds") == seconds
