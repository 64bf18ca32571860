"""A model's statistics, as the protocol has them, out of the metrics."""

from collections.abc import Iterable
from typing import Any

from prometheus_client import REGISTRY

from models.artifact.manifest import Manifest
from service.telemetry.exposition import MetricsPage

SECOND = 1_000_000_000
_STAGES = {"queue": "queue", "compute_input": "encode", "compute_infer": "infer", "compute_output": "decode"}
Totals = dict[tuple[str, str], float]


def statistics(manifests: Iterable[Manifest], metrics: MetricsPage | None) -> dict[str, Any]:
    """Models' statistics: cumulative, over all versions, of all processes where they share metrics.

    Metrics count requests by how they ended and do not time those that failed, so these have no ``ns``. Sizes of
    micro-batches are counted in ranges, of which ``batch_stats`` has no notion, so it is empty.
    """
    totals = _own() if metrics is None else metrics.totals()
    return {"model_stats": [_of_model(manifest, totals.get(manifest.model, {})) for manifest in manifests]}


def _of_model(manifest: Manifest, totals: Totals) -> dict[str, Any]:
    ended = {outcome: count for (sample, outcome), count in totals.items() if sample == "lectern_requests_total"}
    succeeded = ended.pop("ok", 0.0)
    stages = {name: _time(totals, "lectern_stage_seconds", stage) for name, stage in _STAGES.items()}
    answered = _time(totals, "lectern_request_seconds", "")
    return {
        "name": manifest.model,
        "version": manifest.version,
        "last_inference": int(1000 * totals.get(("lectern_last_batch_timestamp_seconds", ""), 0.0)),
        "inference_count": int(totals.get(("lectern_batch_instances_sum", ""), 0.0)),
        "execution_count": int(totals.get(("lectern_batch_instances_bucket", ""), 0.0)),
        "inference_stats": {
            "success": {"count": int(succeeded), "ns": answered["ns"]},
            "fail": {"count": int(sum(ended.values())), "ns": 0},
            **stages,
            "cache_hit": {"count": 0, "ns": 0},
            "cache_miss": {"count": 0, "ns": 0},
        },
        "batch_stats": [],
    }


def _time(totals: Totals, name: str, label: str) -> dict[str, int]:
    return {
        "count": int(totals.get((f"{name}_bucket", label), 0.0)),
        "ns": int(SECOND * totals.get((f"{name}_sum", label), 0.0)),
    }


def _own() -> dict[str, Totals]:
    """Return what ``MetricsPage.totals`` says, of this process alone."""
    found: dict[str, Totals] = {}
    for metric in REGISTRY.collect():
        for sample in metric.samples:
            labels = dict(sample.labels)
            model, _ = labels.pop("model", None), labels.pop("version", None)
            if model is not None and labels.pop("le", "+Inf") == "+Inf":
                of_model, series_key = found.setdefault(model, {}), (sample.name, "".join(labels.values()))
                of_model[series_key] = of_model.get(series_key, 0.0) + sample.value
    return found
