"""The service's own figures: how ``/metrics`` grew in a window, histograms with mean and percentiles."""

from collections import defaultdict
from math import inf

from prometheus_client.parser import text_string_to_metric_families

from loadtests.result import MeasuredValue

PREFIXES = ("lectern_", "bentoml_service_request")
# Made by the service itself or by BentoML about it; what says nothing about one window is left out.
_Labels = tuple[tuple[str, str], ...]
_BUCKET, _SUM, _COUNT, _TOTAL = "_bucket", "_sum", "_count", "_total"
Samples = dict[tuple[str, _Labels], float]


def read(page: str) -> tuple[dict[str, str], Samples]:
    """Return the kind of each metric, and every sample of those that are ours."""
    kinds, samples = {}, {}
    for family in text_string_to_metric_families(page):
        if family.name.startswith(PREFIXES):
            kinds[family.name] = family.type
            for sample in family.samples:
                samples[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return kinds, samples


def growth(before: str, after: str) -> list[MeasuredValue]:
    """Return what counters and histograms gained between two pages, those that gained anything."""
    kinds, last = read(after)
    _, first = read(before)
    gained = {key: value - first.get(key, 0.0) for key, value in last.items()}
    found = []
    for name, kind in kinds.items():
        if kind == "histogram":
            found += _histograms(name, gained)
        elif kind == "counter":
            found += [
                MeasuredValue(name=name, labels=dict(labels), count=value)
                for (sample, labels), value in gained.items()
                if sample == name + _TOTAL and value
            ]
    return found


def _histograms(name: str, gained: Samples) -> list[MeasuredValue]:
    buckets: dict[_Labels, list[tuple[float, float]]] = defaultdict(list)
    for (sample, labels), value in gained.items():
        if sample == name + _BUCKET:
            bound = float(dict(labels)["le"])
            buckets[tuple(pair for pair in labels if pair[0] != "le")].append((bound, value))
    found = []
    for labels, sizes in buckets.items():
        count = gained.get((name + _COUNT, labels), 0.0)
        if count > 0:
            ranked = sorted(sizes)
            found.append(
                MeasuredValue(
                    name=name,
                    labels=dict(labels),
                    count=count,
                    mean=gained.get((name + _SUM, labels), 0.0) / count,
                    p50=quantile(ranked, 0.5),
                    p99=quantile(ranked, 0.99),
                )
            )
    return found


def quantile(buckets: list[tuple[float, float]], share: float) -> float:
    """A quantile of cumulative buckets, interpolated within one as Prometheus does."""
    total = buckets[-1][1]
    low, below = 0.0, 0.0
    for bound, count in buckets:
        if count >= share * total:
            if bound == inf:
                return low
            return low + (bound - low) * (share * total - below) / max(count - below, 1e-12)
        low, below = bound, count
    return low
