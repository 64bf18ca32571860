"""The real page of metrics: its names, units and closed label sets, over all processes, deaths and strange paths."""

import re
import signal
import time
from collections.abc import Iterable, Iterator
from typing import Any

import psutil
import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families

from service.store.catalog import shipped_tags
from service.telemetry.http_metrics import STATUSES
from service.telemetry.metrics import EXPIRED, OUTCOMES, REFUSALS, STAGES
from service.telemetry.state_metrics import ACTIVATIONS, JOB_OUTCOMES, JOB_ROWS, JOB_STATES

pytestmark = [pytest.mark.e2e]

MODELS = sorted(shipped_tags())
VERSIONS = {model: tag.partition(":")[2] for model, tag in shipped_tags().items()}
NAME = re.compile(r"lectern(_[a-z0-9]+)+")
UNITS = (
    "seconds",
    "bytes",
    "instances",
    "ratio",
    "info",
    "fds",
    "index",
    "limit",
    "bound",
    "loaded",
    "active",
    "flight",
    "slots",
    "error",
    "total",
)
COUNTED = (
    "requests",
    "jobs",
    "rows",
    "refusals",
    "activations",
    "mismatches",
    "instances",
    "seconds",
    "range",
    "responses",
    "bytes",
)
SCALED = ("ms", "milliseconds", "minutes", "kilobytes", "mb", "percent")
LABELS: dict[str, frozenset[str] | re.Pattern[str]] = {
    "model": frozenset(MODELS),
    "stage": frozenset(STAGES),
    "outcome": frozenset((*OUTCOMES, *ACTIVATIONS, *JOB_OUTCOMES, *JOB_ROWS)),
    "reason": frozenset((*REFUSALS, *EXPIRED)),
    "state": frozenset(JOB_STATES),
    "kind": frozenset(("used", "total")),
    "device": frozenset(("cpu", "cuda")),
    "provider": frozenset(("CPUExecutionProvider", "CUDAExecutionProvider")),
    "process": re.compile(r"worker-[1-9]|runner-[a-z]+|supervisor"),
    "version": re.compile(r"[0-9][\w.-]*"),
    "digest": re.compile(r"[0-9a-f]{12}"),
    "status": frozenset(STATUSES),
    "commit": re.compile(r"[0-9a-f]{7,40}|unknown"),
    "python": re.compile(r"3\.\d+\.\d+"),
    "onnxruntime": re.compile(r"[\d.]+"),
    "bentoml": re.compile(r"[\d.]+"),
    "pool": re.compile(r"gateway|viewcount|tagging|image|graph"),
    "serial": re.compile(r"[0-9a-f]+"),
    "le": re.compile(r"[0-9.e+-]+|\+Inf"),
    "feature": re.compile(r"[a-z][a-z0-9_]*"),
    "bin": re.compile(r"[\w.+/ -]{1,40}"),  # edges, or a model's own classes
}
# Every series of these, whatever has happened.
WHOLE: dict[str, dict[str, Iterable[str]]] = {
    "lectern_requests_total": {"model": MODELS, "outcome": OUTCOMES},
    "lectern_request_seconds_count": {"model": MODELS},
    "lectern_requests_in_flight": {"model": MODELS},
    "lectern_request_body_bytes_total": {"model": MODELS},
    "lectern_response_body_bytes_total": {"model": MODELS},
    "lectern_http_responses_total": {"status": STATUSES},
    "lectern_keys_file_error": {},
    "lectern_stage_seconds_count": {"model": MODELS, "stage": STAGES},
    "lectern_batch_instances_count": {"model": MODELS},
    "lectern_batch_fill_ratio_count": {"model": MODELS},
    "lectern_compute_seconds_total": {"model": MODELS},
    "lectern_queue_instances": {"model": MODELS},
    "lectern_queue_limit_instances": {"model": MODELS},
    "lectern_expired_instances_total": {"model": MODELS, "reason": EXPIRED},
    "lectern_refusals_total": {"model": MODELS, "reason": REFUSALS},
    "lectern_activations_total": {"model": MODELS, "outcome": ACTIVATIONS},
    "lectern_artifact_mismatches_total": {"model": MODELS},
    "lectern_model_installed_timestamp_seconds": {"model": MODELS},
    "lectern_model_trained_timestamp_seconds": {"model": MODELS},
    "lectern_slots": {"pool": ["gateway"]},
    "lectern_slot_busy_seconds_total": {"pool": ["gateway"]},
    "lectern_last_batch_timestamp_seconds": {"model": MODELS},
    "lectern_jobs_total": {"outcome": JOB_OUTCOMES},
    "lectern_job_rows_total": {"outcome": JOB_ROWS},
    "lectern_jobs_active": {"state": JOB_STATES},
    "lectern_job_progress_timestamp_seconds": {},
    "lectern_batch_padding_ratio_count": {"model": ["tagging"]},
}


def families(page: str) -> list[Metric]:
    return [found for found in text_string_to_metric_families(page) if found.name.startswith("lectern")]


def wrong(page: str) -> Iterator[str]:
    """Yield what is wrong with the names, texts and labels of a page."""
    lines = page.splitlines()
    for metric in families(page):
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        words = name.split("_")
        if not NAME.fullmatch(name) or words[-1] not in UNITS or set(words) & set(SCALED):
            yield f"{name}: its name"
        if (metric.type == "counter") != (words[-1] == "total"):
            yield f"{name}: _total is for counters, and for all of them"
        if metric.type == "counter" and words[-2] not in COUNTED:
            yield f"{name}: what it counts"
        if not re.fullmatch(r"[A-Z0-9].{6,}\.", metric.documentation) or metric.type not in (
            "counter",
            "gauge",
            "histogram",
        ):
            yield f"{name}: its HELP or TYPE"
        if sum(line.startswith(f"# TYPE {name} ") for line in lines) != 1:
            yield f"{name}: described more than once"
        for sample in metric.samples:
            strange = {label: value for label, value in sample.labels.items() if not known(label, value)}
            yield from (f"{name}: {label}={value!r}" for label, value in strange.items())


def known(label: str, value: str) -> bool:
    allowed = LABELS.get(label, frozenset())
    return value in allowed if isinstance(allowed, frozenset) else allowed.fullmatch(value) is not None


def series(page: str) -> dict[str, float]:
    """Return every series of ours, by name and labels."""
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for metric in families(page)
        for sample in metric.samples
    }


def versioned(row: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the labels of a series that says of which version of the model it is, too."""
    return sorted([*row, ("version", VERSIONS[dict(row)["model"]])])


def missing(page: str) -> list[str]:
    found = series(page)
    wanted = []
    for name, labels in WHOLE.items():
        rows: list[list[tuple[str, str]]] = [[]]
        for label, values in labels.items():
            rows = [[*row, (label, value)] for row in rows for value in values]
        is_versioned = name in ("lectern_requests_total", "lectern_request_seconds_count")
        wanted += [f"{name}{versioned(row) if is_versioned else sorted(row)}" for row in rows]
    return [name for name in wanted if name not in found]


def example(server: Any, model: str) -> Any:
    """Return the documented instance of a model."""
    return server.page(f"/v1/models/{model}")["example"]["request"]["instances"][0]


def test_names(placed: Any) -> None:
    """Prometheus's rules hold for every metric, its labels come from closed sets, and all series are there."""
    page = placed.get("/metrics").text
    assert [*wrong(page)] == []
    assert missing(page) == []


@pytest.mark.parametrize(
    ("planted", "complaint"),
    [
        ("# HELP lectern_wait_ms Waiting time of all.\n# TYPE lectern_wait_ms gauge\nlectern_wait_ms 1\n", "its name"),
        ("# HELP lectern_Bad_total Bad ones.\n# TYPE lectern_Bad_total counter\nlectern_Bad_total 1\n", "its name"),
        ("# HELP lectern_x_total All things.\n# TYPE lectern_x_total gauge\nlectern_x_total 1\n", "_total"),
        ("# HELP lectern_x_total All things.\n# TYPE lectern_x_total counter\nlectern_x_total 1\n", "counts"),
        ("# HELP lectern_x_bytes x\n# TYPE lectern_x_bytes gauge\nlectern_x_bytes 1\n", "HELP"),
        ('# HELP lectern_x_bytes All bytes.\n# TYPE lectern_x_bytes gauge\nlectern_x_bytes{path="/x"} 1\n', "path"),
        ('# HELP lectern_x_bytes All bytes.\n# TYPE lectern_x_bytes gauge\nlectern_x_bytes{model="gpt"} 1\n', "gpt"),
    ],
    ids=["unit", "capital", "gauge", "counted", "help", "label", "value"],
)  # fmt: skip
def test_bad_names_are_found(planted: str, complaint: str) -> None:
    """The check sees each kind of fault."""
    assert any(complaint in fault for fault in wrong(planted)), [*wrong(planted)]


def test_missing_series_are_found(server: Any) -> None:
    """One series less is seen."""
    page = server.get("/metrics").text
    line = next(line for line in page.splitlines() if line.startswith("lectern_refusals_total{"))
    assert len(missing(page.replace(line, ""))) == 1


def test_stages_are_told_apart(placed: Any) -> None:
    """A request is once in each stage, and the stages are no longer than the whole."""
    for model in MODELS:
        before = series(placed.get("/metrics").text)
        placed.predict(model, example(placed, model))
        after = series(placed.get("/metrics").text)

        grown = {name: after[name] - before[name] for name in after}
        labels = [f"[('model', '{model}'), ('stage', '{stage}')]" for stage in STAGES]
        assert [grown[f"lectern_stage_seconds_count{one}"] for one in labels] == [1] * 4
        parts = [grown[f"lectern_stage_seconds_sum{one}"] for one in labels]
        whole = grown[f"lectern_request_seconds_sum{versioned([('model', model)])}"]
        assert min(parts) > 0
        # Decoding ends when the answer is written, a little after the request.
        assert whole * 0.5 < sum(parts) < whole + 0.005, (parts, whole)


def test_processes(placed: Any) -> None:
    """Every process is there by its name, with figures that its system has too."""
    found = series(placed.get("/metrics").text)
    names = {"supervisor", "worker-1"}
    if placed.page("/v1/models") and any("_runner" in " ".join(one.cmdline()) for one in placed.tree()):
        names |= {"runner-viewcount", "runner-tagging", "runner-image", "runner-graph"}
    for figure in ("resident_memory_bytes", "open_fds", "start_timestamp_seconds", "cpu_seconds_total"):
        name = f"lectern_process_{figure}"
        assert {key for key in found if key.startswith(name)} == {f"{name}[('process', '{one}')]" for one in names}
    rss = found["lectern_process_resident_memory_bytes[('process', 'supervisor')]"]
    assert rss == pytest.approx(placed.tree()[0].memory_info().rss, rel=0.2)
    started = found["lectern_process_start_timestamp_seconds[('process', 'worker-1')]"]
    assert time.time() - 3600 < started < time.time()


def test_a_death_leaves_the_counters_and_no_ghosts(launch: Any) -> None:
    """What a killed worker counted goes on counting; what it had waiting, and it itself, does not; no series is new."""
    server = launch(
        LECTERN_WORKERS="2",
        LECTERN_MODELS="viewcount,tagging",
        LECTERN_QUEUE_LIMIT="100",
        LECTERN_MAX_INSTANCES="100",
    )
    for _ in range(40):
        server.predict("viewcount", example(server, "viewcount"))
    wait_until_ready(server, 4)
    before = series(server.get("/metrics").text)
    assert before["lectern_queue_limit_instances[('model', 'viewcount')]"] == 200
    ok = f"lectern_requests_total{versioned([('model', 'viewcount'), ('outcome', 'ok')])}"
    for _ in range(2):
        kill_a_worker(server)
    after = series(server.get("/metrics").text)
    assert before.keys() == after.keys()
    assert (before[ok], after[ok]) == (40, 40)
    assert after["lectern_queue_limit_instances[('model', 'viewcount')]"] == 200
    assert after[f"lectern_request_seconds_count{versioned([('model', 'viewcount')])}"] == 40


def kill_a_worker(server: Any) -> None:
    """Kill one of two, and wait until there are two again."""
    workers = [one for one in server.tree() if "lectern_gateway" in " ".join(one.cmdline())]
    lines = server.log.read_text().count('"ready"')
    workers[0].send_signal(signal.SIGKILL)
    psutil.wait_procs(workers[:1], timeout=5)
    wait_until_ready(server, lines + 2)


def wait_until_ready(server: Any, lines: int) -> None:
    """Wait until so many models have said so, each in each of its workers."""
    deadline = time.monotonic() + 30
    while server.log.read_text().count('"ready"') < lines:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_openmetrics(placed: Any) -> None:
    """The real page as OpenMetrics: packed on request, read by a strict parser, with a request to look at."""
    mine = f"exemplar-{time.monotonic_ns()}"
    content = {"instances": [example(placed, "molecule")]}
    assert placed.client.post("/v1/models/molecule/predict", json=content, headers={"x-request-id": mine}).is_success
    answer = placed.client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert answer.headers["content-encoding"] == "gzip"  # httpx accepts it
    found = [*open_families(answer.text)]
    assert {one.name for one in families(placed.get("/metrics").text)} <= {one.name for one in found}
    samples = [one for metric in found if metric.name == "lectern_request_seconds" for one in metric.samples]
    exemplars = [one.exemplar for one in samples if one.exemplar is not None and one.labels["model"] == "molecule"]
    assert mine in {one.labels["request_id"] for one in exemplars}
