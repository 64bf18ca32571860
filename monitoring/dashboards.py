"""Writes monitoring/dashboards: ``make dashboards``. One page for all, one per family, one for jobs, one for drift."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from loadtests.objectives import read_objectives
from models.artifact.manifest import MANIFEST_FILE
from models.card import Family
from models.paths import REPOSITORY
from models.registry import FAMILIES
from monitoring.panels import (
    BYTES,
    BYTES_PER_SECOND,
    COUNT,
    REQUESTS,
    SECONDS,
    SHARE,
    THIRD,
    TIMES,
    WHOLE,
    Panel,
    Query,
    bars,
    board,
    choice,
    lines,
    number,
    rows,
)

FOLDER = REPOSITORY / "monitoring" / "dashboards"
OBJECTIVES = read_objectives()
MODELS = "label_values(lectern_model_loaded, model)"
FEATURES = 'label_values(lectern_feature_expected_ratio{model=~"$model"}, feature)'
OF_MODEL = '{model=~"$model"}'
QUANTILES = ("p50", "p95", "p99")


def _row(page: Dashboard, title: str, panels: Sequence[Panel]) -> Dashboard:
    page = page.with_row(Row(title))
    for panel in panels:
        page = page.with_panel(panel)
    return page


def _now_against_training(feature: str) -> list[Query]:
    """Return what share of the instances falls into each bin: in the time shown, and in training."""
    chosen = f'model=~"$model", feature=~"{feature}"'
    counted = f"increase(lectern_feature_instances_total{{{chosen}}}[$__range])"
    return [
        Query(f"sum by (bin) ({counted}) / on () group_left sum ({counted})", "now"),
        Query(f"max by (bin) (lectern_feature_expected_ratio{{{chosen}}})", "training"),
    ]


def _stages(limit: float) -> list[Panel]:
    p99 = f"job_model_stage:lectern_stage_seconds:p99_5m{OF_MODEL}"
    mean = f"job_model_stage:lectern_stage_seconds:mean5m{OF_MODEL}"
    quantiles = [Query(f"job_model:lectern_request_seconds:{q}_5m{OF_MODEL}", f"{{{{model}}}} {q}") for q in QUANTILES]
    return [
        lines("Time to answer", SECONDS, *quantiles, width=THIRD, limit=limit),
        lines("Each stage, p99", SECONDS, Query(p99, "{{model}} {{stage}}"), width=THIRD),
        lines("Each stage, on average", SECONDS, Query(mean, "{{model}} {{stage}}"), width=THIRD),
    ]


def _stages_of_all() -> list[Panel]:
    """As ``_stages``, in as many lines as can be told apart when every model is shown."""
    buckets = f"sum by (stage, le) (rate(lectern_stage_seconds_bucket{OF_MODEL}[5m]))"
    spent = f"sum by (stage) (rate(lectern_stage_seconds_sum{OF_MODEL}[$__rate_interval]))"
    return [
        lines("Time to answer, p99", SECONDS, Query(f"job_model:lectern_request_seconds:p99_5m{OF_MODEL}", "{{model}}"),
              width=THIRD, limit=OBJECTIVES.p99_ms / 1000),
        lines("Each stage, p99", SECONDS, Query(f"histogram_quantile(0.99, {buckets})", "{{stage}}"), width=THIRD),
        lines("Requests in each stage", COUNT, Query(spent, "{{stage}}"), width=THIRD, is_stacked=True,
              description="Seconds spent per second: how many are in it at a time, on average."),
    ]  # fmt: skip


def _outcomes() -> Query:
    return Query(f"sum by (outcome) (rate(lectern_requests_total{OF_MODEL}[$__rate_interval])) > 0", "{{outcome}}")


def _load() -> list[Panel]:
    refused = f"sum by (reason) (rate(lectern_refusals_total{OF_MODEL}[$__rate_interval]))"
    dropped = f"sum by (reason) (rate(lectern_expired_instances_total{OF_MODEL}[$__rate_interval]))"
    lanes = f"sum by (model) (rate(lectern_compute_seconds_total{OF_MODEL}[$__rate_interval]))"
    return [
        lines("Queue", SHARE, Query(f"job_model:lectern_queue:fill_ratio{OF_MODEL}", "{{model}}"), width=THIRD,
              limit=0.8, description="Waiting instances over those that may wait."),
        lines("Refused, by reason", REQUESTS, Query(refused, "{{reason}}"), width=THIRD, is_stacked=True),
        lines("Dropped before they ran, by reason", "cps", Query(dropped, "{{reason}}"), width=THIRD, is_stacked=True,
              description="Instances per second whose requests were over before their turn came."),
        lines("Instances in a micro-batch", COUNT,
              Query(f"job_model:lectern_batch_instances:mean5m{OF_MODEL}", "{{model}}"),
              width=THIRD, description="On average."),
        lines("Budget taken by a micro-batch", SHARE,
              Query(f"job_model:lectern_batch_fill:mean5m{OF_MODEL}", "{{model}}"),
              width=THIRD, description="On average."),
        lines("Lanes at work", COUNT, Query(lanes, "{{model}}"), width=THIRD, is_stacked=True,
              description="Seconds of computing per second; at most as many as there are lanes."),
    ]  # fmt: skip


def _http() -> list[Panel]:
    rate = "sum by ({0}) (rate({1}[$__rate_interval])) > 0"
    refused = rate.format("status", 'lectern_http_responses_total{status!~"200|201|202|204|206|304|307"}')
    received, sent = (f"lectern_{kind}_body_bytes_total{OF_MODEL}" for kind in ("request", "response"))
    return [
        lines("Refused on any path, by status", REQUESTS, Query(refused, "{{status}}"), width=THIRD, is_stacked=True,
              description="Also pages, jobs, unknown paths and broken HTTP, which no model counts."),
        lines("Requests in flight", COUNT,
              Query(f"sum by (model) (lectern_requests_in_flight{OF_MODEL})", "{{model}}"),
              width=THIRD, is_stacked=True),
        lines("Bodies", BYTES_PER_SECOND,
              Query(f"sum(rate({received}[$__rate_interval]))", "in"),
              Query(f"sum(rate({sent}[$__rate_interval]))", "out"), width=THIRD),
        lines("By key", REQUESTS,
              Query(rate.format("key, outcome", "lectern_key_requests_total"), "{{key}} {{outcome}}"),
              width=THIRD, is_stacked=True, description="Empty without keys."),
        lines("By version", REQUESTS,
              Query(rate.format("model, version", f"lectern_requests_total{OF_MODEL}"), "{{model}} {{version}}"),
              width=THIRD, is_stacked=True),
        rows("Built from", COUNT, Query("lectern_build_info", "runs"), width=THIRD),
    ]  # fmt: skip


def overview() -> Dashboard:
    """Return everything at a glance."""
    page = board(
        "lectern-overview", "Lectern", "Is it well, what is asked of it, where does the time go?",
        [choice("model", "Model", MODELS, several=True)],
    )  # fmt: skip
    page = _row(page, "Is it well?", [
        number("Instances that answer", COUNT, 'sum(up{job="lectern"})'),
        number("Alerts that fire", COUNT, 'count(ALERTS{alertstate="firing", alertname=~"Lectern.*"}) or vector(0)',
               red_above=1),
        number("Requests per second", REQUESTS, f"sum(job_model:lectern_requests:rate5m{OF_MODEL})"),
        number("Failed in the last hour", SHARE, f"max(job_model:lectern_requests_failed:ratio_rate1h{OF_MODEL})",
               red_above=0.0144, description="Of the worst model."),
        number("Late in the last hour", SHARE, f"max(job_model:lectern_requests_slow:ratio_rate1h{OF_MODEL})",
               red_above=0.144, description="Answers later than their objective, of the worst model."),
        number("Drift, of its limit", TIMES, f"max(job_model_feature:lectern_feature_stability:of_limit{OF_MODEL})",
               red_above=1, description="Of the worst feature."),
    ])  # fmt: skip
    page = _row(page, "What is asked, and what becomes of it", [
        lines("Requests", REQUESTS,
              Query(f"sum by (model) (rate(lectern_requests_total{OF_MODEL}[$__rate_interval]))", "{{model}}"),
              width=THIRD, is_stacked=True),
        lines("By outcome", REQUESTS, _outcomes(), width=THIRD, is_stacked=True),
        lines("Share that fails", SHARE,
              Query(f"job_model:lectern_requests_failed:ratio_rate5m{OF_MODEL}", "{{model}}"),
              width=THIRD, limit=0.0144,
              description="Of what could be answered; what callers do wrong counts on neither side."),
    ])  # fmt: skip
    page = _row(page, "HTTP", _http())
    page = _row(page, "Where the time goes", _stages_of_all())
    page = _row(page, "Load", _load())
    page = _row(page, "Models", [
        rows("Served", COUNT, Query("lectern_model_loaded == 1", "serves"), width=16),
        rows("Days since training or installation", "d", Query(
            "(time() - (max by (model) (lectern_model_trained_timestamp_seconds > 0) or "
            "max by (model) (lectern_model_installed_timestamp_seconds > 0))) / 86400", "age"), width=THIRD),
    ])  # fmt: skip
    return _row(page, "Machine", [
        lines("Memory", BYTES, Query("lectern_process_resident_memory_bytes", "{{instance}} {{process}}"), width=THIRD),
        lines("Cores", COUNT,
              Query("rate(lectern_process_cpu_seconds_total[$__rate_interval])", "{{instance}} {{process}}"),
              width=THIRD, is_stacked=True),
        lines("Open files and sockets", COUNT, Query("lectern_process_open_fds", "{{instance}} {{process}}"),
              width=THIRD),
        lines("Starts", COUNT,
              Query("changes(lectern_process_start_timestamp_seconds[30m])", "{{instance}} {{process}}"),
              width=THIRD, description="Of each process in the last half hour; three are an alert.", limit=3),
        lines("Time of a scrape", SECONDS, Query('scrape_duration_seconds{job="lectern"}', "{{instance}}"),
              width=THIRD, limit=1),
        lines("GPU memory", BYTES, Query("lectern_device_memory_bytes", "{{instance}} {{kind}}"),
              width=THIRD, description="Empty without a GPU."),
        lines("Slots in use", SHARE,
              Query("job_instance_pool:lectern_slots:busy_ratio", "{{instance}} {{pool}}"), width=THIRD, limit=0.9,
              description="Of those that compute beside the event loop."),
    ])  # fmt: skip


def of_family(family: Family, models: Sequence[str]) -> Dashboard:
    """Return one family's models, one at a time."""
    limit = OBJECTIVES.of(models).p99_ms / 1000
    page = board(
        f"lectern-{family.name}", f"Lectern: {family.title}", f"One model of the family {family.name} at a time.",
        [choice("model", "Model", MODELS, current=models[0]), choice("feature", "Feature", FEATURES, several=True)],
    )  # fmt: skip
    page = _row(page, "What is asked, and what becomes of it", [
        number("Requests per second", REQUESTS, f"sum(job_model:lectern_requests:rate5m{OF_MODEL})"),
        number("Answered per second", REQUESTS, f"sum(job_model:lectern_requests_ok:rate5m{OF_MODEL})"),
        number("Failed in the last hour", SHARE, f"max(job_model:lectern_requests_failed:ratio_rate1h{OF_MODEL})",
               red_above=0.0144),
        number("Late in the last hour", SHARE, f"max(job_model:lectern_requests_slow:ratio_rate1h{OF_MODEL})",
               red_above=0.144),
        number("Time to answer, p99", SECONDS, f"max(job_model:lectern_request_seconds:p99_5m{OF_MODEL})",
               red_above=limit),
        number("Drift, of its limit", TIMES, f"max(job_model_feature:lectern_feature_stability:of_limit{OF_MODEL})",
               red_above=1, description="Of the worst feature."),
        lines("By outcome", REQUESTS, _outcomes(), width=WHOLE, is_stacked=True),
    ])  # fmt: skip
    page = _row(page, "Where the time goes", _stages(limit))
    load = _load()
    if any(card.budget.is_padded for card in family.cards):
        padding = Query(f"job_model:lectern_batch_padding:mean5m{OF_MODEL}", "{{model}}")
        load.append(lines("Padding in a micro-batch", SHARE, padding, width=WHOLE, description="On average."))
    page = _row(page, "Load", load)
    return _row(page, "What is asked, against training", [
        lines("Stability index, of its limit", TIMES,
              Query(f"job_model_feature:lectern_feature_stability:of_limit{OF_MODEL}", "{{feature}}"),
              width=WHOLE, limit=1),
        bars("$feature", "bin", *_now_against_training("$feature"), repeat="feature"),
    ])  # fmt: skip


def jobs() -> Dashboard:
    """Batch jobs over REST."""
    page = board("lectern-jobs", "Lectern: jobs", "Do batch jobs get on?", [])
    page = _row(page, "Now", [
        number("Running", COUNT, 'sum(lectern_jobs_active{state="running"})'),
        number("Queued", COUNT, 'sum(lectern_jobs_active{state="queued"})'),
        number("Resting for want of space", COUNT, 'sum(lectern_jobs_active{state="paused_no_space"})', red_above=1),
        number("Rows per second", "cps", "sum(job:lectern_job_rows:rate5m)"),
        number("Error rows in the last hour", SHARE, "max(job:lectern_job_rows_error:ratio_increase1h)",
               red_above=0.05),
        number("Since the last row", SECONDS, "max(time() - (lectern_job_progress_timestamp_seconds > 0))",
               red_above=600, description="Of the running job that has stood still longest."),
    ])  # fmt: skip
    return _row(page, "Over time", [
        lines("Jobs, by state", COUNT, Query("sum by (state) (lectern_jobs_active)", "{{state}}"), is_stacked=True),
        lines("Rows, by how they came out", "cps",
              Query("sum by (outcome) (rate(lectern_job_rows_total[$__rate_interval]))", "{{outcome}}"),
              is_stacked=True),
        lines("Jobs that ended in the last hour", COUNT,
              Query("sum by (outcome) (increase(lectern_jobs_total[1h]))", "{{outcome}}"),
              is_stacked=True),
        lines("Since the last row", SECONDS,
              Query("time() - (lectern_job_progress_timestamp_seconds > 0)", "{{instance}}"),
              limit=600),
    ])  # fmt: skip


def drift() -> Dashboard:
    """Does what is asked still look like training?"""
    page = board(
        "lectern-drift", "Lectern: drift", "Does what is asked still look like what the models were trained on?",
        [choice("model", "Model", MODELS, several=True), choice("feature", "Feature", FEATURES, several=True)],
    )  # fmt: skip
    both = '{model=~"$model", feature=~"$feature"}'
    page = _row(page, "Every model and feature", [
        lines("Stability index, of its limit", TIMES,
              Query(f"job_model_feature:lectern_feature_stability:of_limit{both}", "{{model}} {{feature}}"),
              limit=1),
        lines("Out of the range of training", SHARE,
              Query(f"job_model_feature:lectern_feature_out_of_range:ratio{both}", "{{model}} {{feature}}"),
              limit=0.05),
        lines("Stability index", COUNT,
              Query(f"max by (model, feature) (lectern_feature_stability_index{both})", "{{model}} {{feature}}"),
              width=THIRD),
        rows("Limits", COUNT, Query(f"max by (model, feature) (lectern_feature_stability_limit{both})", "limit"),
             width=THIRD),
        lines("Instances in the window", COUNT,
              Query(f"max by (model) (lectern_feature_window_instances{OF_MODEL})", "{{model}}"),
              width=THIRD, description="Below 1,000 nothing is said."),
    ])  # fmt: skip
    return _row(page, "What is asked, against training (choose one model)", [
        bars("$feature", "bin", *_now_against_training("$feature"), repeat="feature"),
    ])  # fmt: skip


def pages() -> dict[str, str]:
    """Return the dashboards' files: name and content."""
    built = {"overview": overview(), "jobs": jobs(), "drift": drift()}
    for family in FAMILIES:
        shipped = sorted(
            file.parent.name for file in REPOSITORY.glob(f"models/{family.name}/trained/*/{MANIFEST_FILE}")
        )
        built[family.name] = of_family(family, shipped)
    return {f"{name}.json": _text(page.build()) for name, page in built.items()}


def _text(page: Any) -> str:
    for index, panel in enumerate(page.panels):
        panel.id_val = index + 1
    return json.dumps(page, cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path), default=FOLDER)
def main(folder: Path) -> None:
    """Write them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text)
        sys.stdout.write(f"{folder / name}\n")


if __name__ == "__main__":
    main()
