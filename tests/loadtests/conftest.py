"""Results made by hand, so that a test knows every figure in them."""

from collections.abc import Callable
from typing import Any

import pytest

from loadtests.result import LoadResult, ModelResult, Moment, Used
from loadtests.task import Objective


def make_part(name: str = "counted", **figures: Any) -> ModelResult:
    """Return a second in which 100 requests were due and all answered."""
    usual: dict[str, Any] = {
        "seconds": 1.0,
        "offered": 100,
        "offered_rate": 100.0,
        "good_rate": 100.0,
        "latency_ms": {"p50": 4.0, "p90": 5.0, "p95": 6.0, "p99": 8.0, "p99.9": 9.0, "max": 9.5},
        "sent_ms": {"p50": 3.9, "p99": 7.9},
        "lag_p99_ms": 0.1,
        "missed_share": 0.0,
        "failed_share": 0.0,
        "outcomes": {"ok": 100},
    }
    return ModelResult(name=name, **{**usual, **figures})


def make_used(**figures: Any) -> Used:
    """Return a server at half a core, and a generator at a tenth of one."""
    usual: dict[str, Any] = {
        "seconds": 1.0,
        "server_cores": 0.5,
        "busiest_process": 0.5,
        "server_processes": 1,
        "client_share": 0.1,
        "client_cores": 0.1,
        "machine_share": 0.3,
        "stolen_share": 0.0,
        "network_mb": 0.1,
        "network_limit_mb": None,
    }
    return Used(**{**usual, **figures})


def make_moment(at: float, **figures: Any) -> Moment:
    """Return a moment at which all was well."""
    usual = {"offered_rate": 100.0, "good_rate": 100.0, "failed_rate": 0.0, "p50_ms": 4.0, "p99_ms": 8.0}
    return Moment(at=at, **{**usual, **figures})


def make_result(**fields: Any) -> LoadResult:
    """Return a run that passed."""
    usual: dict[str, Any] = {
        "profile": "smoke",
        "command": "python -m loadtests run",
        "date": "2026-11-22T00:00:00+00:00",
        "commit": "0123456789ab",
        "host": "http://127.0.0.1:3000",
        "machine": {"cpu": "A", "cores": 2, "memory_gb": 1.0, "system": "Linux", "load_before": [0.0, 0.0, 0.0]},
        "versions": {"python": "3.11.0"},
        "models": [["viewcount", "1.0.0", "0" * 64, "viewcount"]],
        "weights": {"viewcount": 1.0},
        "arrivals": "poisson",
        "seed": 7,
        "users": 0,
        "workers": 1,
        "objective": Objective(p99_ms=100.0, error_share=0.001),
        "lag_limit_ms": 10.0,
        "whole": make_part(),
        "parts": [make_part("warm-up"), make_part("smoke")],
        "by_model": [make_part("viewcount")],
        "moments": [make_moment(0.5), make_moment(1.5)],
        "percentiles": [(0.0, 1.0), (50.0, 4.0), (99.0, 8.0), (100.0, 9.5)],
        "used": make_used(),
        "metrics": [],
    }
    return LoadResult(**{**usual, **fields})


@pytest.fixture(scope="session")
def part() -> Callable[..., ModelResult]:
    """Makes parts."""
    return make_part


@pytest.fixture(scope="session")
def used() -> Callable[..., Used]:
    """Makes what was used."""
    return make_used


@pytest.fixture(scope="session")
def moment() -> Callable[..., Moment]:
    """Makes moments."""
    return make_moment


@pytest.fixture(scope="session")
def made() -> Callable[..., LoadResult]:
    """Makes results."""
    return make_result
