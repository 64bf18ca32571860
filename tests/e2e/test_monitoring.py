"""A served process under Debian's own Prometheus: scraped, its rules evaluated, every dashboard's queries answered."""

import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from models.paths import REPOSITORY
from models.runtime.predictor import Predictor
from monitoring.debian import find
from monitoring.local_prometheus import Prometheus, ScrapeTarget, begin, free_port
from tests.e2e.conftest import MODELS, Launch, Server
from tests.monitoring.expressions import DASHBOARDS, MONITORING, queries

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

EACH, ROWS = 60, 3000
# What has nothing to say here: no GPU, no job that runs, no padding but in tagging's own page, nobody refused by a key.
MAY_BE_EMPTY = (
    "lectern_key_requests_total",  # only where there are keys
    r"lectern_device_memory_bytes",
    r"lectern_job_progress_timestamp_seconds > 0",
    r"ALERTS\{",
)


@pytest.fixture(scope="module")
def service(launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """Two workers with every model, and jobs."""
    root = tmp_path_factory.mktemp("root")
    (root / "few.jsonl").write_text(('{"text": "I saw a saw"}\n' * 49 + '{"text": 5}\n') * (ROWS // 50))
    return launch(LECTERN_WORKERS="2", LECTERN_JOBS_ROOT=str(root))


@pytest.fixture(scope="module")
def prometheus(service: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """One that looks once a second, and has looked twice."""
    programs = find()
    if programs is None:
        pytest.skip("no Prometheus: make prometheus fetches Debian's")
    target = ScrapeTarget(address=f"127.0.0.1:{service.port}", seconds=1)
    running = begin(programs, target, tmp_path_factory.mktemp("prometheus"), free_port())
    try:
        until(lambda: running.number('count_over_time(up{job="lectern"}[1m])') >= 3)
        yield running
    finally:
        running.stop()


def until(is_so: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for something that comes with one of the next scrapes."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.2)


Sent = Mapping[str, Counter[str]]


@pytest.fixture(scope="module")
def sent(service: Server, prometheus: Prometheus, shipped: Callable[[str], Predictor]) -> Sent:
    """What was asked of each model by outcome, once Prometheus has seen all of it and recorded its rates."""
    ledger = {model: Counter[str]() for model in MODELS}
    rng = np.random.default_rng(7)
    for model in MODELS:
        predictor = shipped(model)
        for _ in range(EACH):
            instance = predictor.card.random_request(rng, predictor.assets)
            answer = service.post(model, msgspec.json.encode({"instances": [instance]}))
            assert answer.status_code == 200, answer.text
            ledger[model]["ok"] += 1
        for _ in range(EACH // 4):
            assert service.post(model, {"instances": [{"nonsense": 1}]}).status_code == 422
            ledger[model]["invalid_request"] += 1
        assert service.post(model, b"{").status_code == 400
        ledger[model]["malformed_request"] += 1
    hurried = orjson.dumps({"instances": [{"tokens": ["long"] * 512}] * 64})
    for _ in range(EACH // 10):
        answer = service.post("tagging", hurried, x_request_timeout_ms="1")
        assert answer.status_code in (503, 504)
        ledger["tagging"][answer.json()["code"]] += 1
    position = service.client.post("/v1/jobs", json={"model": "tagging", "input": "few.jsonl"}).headers["location"]
    until(lambda: service.page(position)["state"] == "done")
    total = sum(ledger[model].total() for model in MODELS)
    until(lambda: prometheus.number("sum(lectern_requests_total)") == total)
    until(lambda: prometheus.number('lectern_jobs_total{outcome="done"}') == 1)
    seen = time.monotonic()
    until(lambda: time.monotonic() > seen + 3)  # three more evaluations of the rules
    return ledger


def test_the_target_is_up(prometheus: Prometheus) -> None:
    """Its scrapes succeed."""
    (target,) = prometheus.ask("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    assert prometheus.number('up{job="lectern"}') == 1


def test_no_rule_fails(prometheus: Prometheus, sent: Sent) -> None:
    """Every rule of every file is loaded, and evaluated without an error."""
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    files = sorted((MONITORING / "rules").glob("*.yml"))
    written = [group["rules"] for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    assert len(rules) == sum(map(len, written))
    assert {(rule["name"], rule["health"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"} == set()


def test_nothing_fires_on_a_healthy_service(prometheus: Prometheus, sent: Sent) -> None:
    """The few late requests are below ten."""
    assert [one["metric"] for one in prometheus.query('ALERTS{alertstate="firing"}')] == []


def test_counters_are_the_ledger(prometheus: Prometheus, sent: Sent) -> None:
    """Every request exactly once, by model and outcome, over both workers."""
    found = {
        (one["metric"]["model"], one["metric"]["outcome"]): float(one["value"][1])
        for one in prometheus.query("sum by (model, outcome) (lectern_requests_total) > 0")
    }
    assert found == {(model, outcome): number for model in sent for outcome, number in sent[model].items()}


def test_no_counter_falls(prometheus: Prometheus, sent: Sent) -> None:
    """Prometheus takes one that does for a restart, and counts everything before it once more."""
    names = {one["metric"]["__name__"] for one in prometheus.query('{__name__=~"lectern_.+_(total|count|bucket)"}')}
    assert len(names) > 15
    assert {name for name in names if prometheus.query(f"resets({name}[5m]) > 0")} == set()
    rows = {one["metric"]["outcome"]: float(one["value"][1]) for one in prometheus.query("lectern_job_rows_total")}
    assert rows == {"ok": ROWS - ROWS // 50, "error": ROWS // 50}


def test_recorded_rates_are_what_was_sent(prometheus: Prometheus, sent: Sent) -> None:
    """A five-minute rate times five minutes; Prometheus extends what it saw by up to a scrape."""
    for model, outcomes in sent.items():
        rate = prometheus.number(f'job_model:lectern_requests:rate5m{{model="{model}"}}')
        assert rate * 300 == pytest.approx(outcomes.total(), rel=0.15)
        answered = prometheus.number(f'job_model:lectern_requests_ok:rate5m{{model="{model}"}}')
        assert answered / rate == pytest.approx(outcomes["ok"] / outcomes.total(), rel=0.02)


def test_recorded_shares_are_what_was_sent(prometheus: Prometheus, sent: Sent) -> None:
    """What callers do wrong is no failure; what came too late is one."""
    late = sum(number for outcome, number in sent["tagging"].items() if outcome in ("overloaded", "deadline_exceeded"))
    assert late == EACH // 10
    for model in MODELS:
        failed = prometheus.number(f'job_model:lectern_requests_failed:ratio_rate5m{{model="{model}"}}')
        assert failed == pytest.approx(late / (late + EACH) if model == "tagging" else 0, rel=0.02)


def test_recorded_quantiles_are_times(prometheus: Prometheus, sent: Sent) -> None:
    """Between a tenth of a millisecond and ten seconds, in order, and no stage takes longer than the whole."""
    for model in MODELS:
        p50, p95, p99 = (
            prometheus.number(f'job_model:lectern_request_seconds:{q}_5m{{model="{model}"}}')
            for q in ("p50", "p95", "p99")
        )
        assert 0 < p50 <= p95 <= p99 <= 10
        stages = prometheus.query(f'job_model_stage:lectern_stage_seconds:mean5m{{model="{model}"}}')
        assert {one["metric"]["stage"] for one in stages} == {"encode", "queue", "infer", "decode"}
        of_model = f'{{model="{model}"}}'
        whole = prometheus.number(
            f"sum(lectern_request_seconds_sum{of_model}) / sum(lectern_request_seconds_count{of_model})"
        )
        assert all(0 <= float(one["value"][1]) <= whole * 1.5 for one in stages)


@pytest.mark.parametrize("page", DASHBOARDS, ids=[file.stem for file in DASHBOARDS])
def test_dashboards_show_something(page: Path, prometheus: Prometheus, sent: Sent) -> None:
    """No query is refused, and none is empty but those that have a reason."""
    empty = []
    for query in queries(orjson.loads(page.read_text())):
        found = prometheus.query(query)
        if not found and not any(re.search(pattern, query) for pattern in MAY_BE_EMPTY):
            empty.append(query)
    assert empty == []


def test_a_refused_query_is_found(prometheus: Prometheus) -> None:
    """The control, and one for a query without an answer."""
    with pytest.raises(ValueError, match="parse error"):
        prometheus.query("sum by (model lectern_requests_total)")
    assert prometheus.query("lectern_planted_total") == []


def differences(page: str, listed: Mapping[str, Any]) -> list[str]:
    """Return where a scrape and the closed list of metrics differ."""
    found = {
        family.name + ("_total" if family.type == "counter" else ""): family
        for family in text_string_to_metric_families(page)
        if family.name.startswith("lectern_") and family.samples
    }
    wrong = [f"not listed: {name}" for name in sorted(found.keys() - listed.keys())]
    for name, entry in listed.items():
        if name not in found:
            wrong += [] if entry.get("is_optional") else [f"not exposed: {name}"]
            continue
        samples = found[name].samples
        labels = {frozenset(sample.labels) - {"le"} for sample in samples}
        if labels != {frozenset(entry["labels"])}:
            wrong.append(f"{name}: labels {sorted(map(sorted, labels))}")
        for label, values in entry["labels"].items():
            seen = {sample.labels.get(label) for sample in samples}
            if values is not None and seen != set(values):
                wrong.append(f"{name}: {label} {sorted(map(str, seen ^ set(values)))}")
        bounds = {sample.labels["le"] for sample in samples if "le" in sample.labels}
        if "buckets" in entry and bounds != set(entry["buckets"]):
            wrong.append(f"{name}: buckets {sorted(bounds ^ set(entry['buckets']))}")
    return wrong


def test_the_scrape_is_the_list(service: Server) -> None:
    """monitoring/metrics.yml and the scrape name the same metrics, labels and closed values."""
    listed = yaml.safe_load((MONITORING / "metrics.yml").read_text())
    assert differences(service.get("/metrics").text, listed) == []


def test_differences_are_found() -> None:
    """The control."""
    page = '# TYPE lectern_a_total counter\nlectern_a_total{model="x",why="b"} 1\n# TYPE lectern_b gauge\nlectern_b 1\n'
    listed = {"lectern_a_total": {"labels": {"model": None, "why": ["a"]}}, "lectern_c": {"labels": {}}}
    assert differences(page, listed) == [
        "not listed: lectern_b", "lectern_a_total: why ['a', 'b']", "not exposed: lectern_c",
    ]  # fmt: skip


def fetch(url: str) -> str:
    """Return a page, or a part of one, that must be there."""
    with urllib.request.urlopen(url) as answer:
        return str(answer.read().decode())


def test_make_monitor(service: Server, prometheus: Prometheus) -> None:
    """It says its address, watches, and ends with Ctrl-C, leaving nothing behind."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "monitoring", "--url", service.url, "--port", str(port), "--seconds", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        # A shell has what it starts in the background ignore Ctrl-C, and so do these tests where it started them.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        words = re.match(r"Prometheus watches (\S+) every 1 s: (\S+/alerts) \(Ctrl-C stops it", said)
        assert words is not None, said
        assert words[1] == service.url
        ours = Prometheus(f"http://127.0.0.1:{port}", process)  # type: ignore[arg-type]
        until(lambda: ours.number('up{job="lectern"}') == 1)
        page = fetch(words[2])
        assert "LecternErrorBudgetBurnsFast" in page
        parts = re.findall(r'(?:src|<link [^>]*href)="(/[^"]+)"', page)
        assert len(parts) > 3
        assert all(fetch(f"{ours.url}{part}") for part in parts if ".ico" not in part)
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(15)
    assert free_port(port) == port
