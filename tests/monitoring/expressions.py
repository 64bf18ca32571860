"""What PromQL expressions read: metrics, labels and the values that they ask for."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import orjson
import promql_parser as promql
import yaml

from models.paths import REPOSITORY

MONITORING = REPOSITORY / "monitoring"
DASHBOARDS = sorted((MONITORING / "dashboards").glob("*.json"))
# Of every scrape, by Prometheus itself.
SCRAPED = {"up": {"job", "instance"}, "scrape_duration_seconds": {"job", "instance"}}
TARGET = {"job", "instance"}
OF_HISTOGRAM = ("_bucket", "_sum", "_count")
# What Grafana puts in place of its own variables.
RANGES = {"$__rate_interval": "1m", "$__range": "15m"}


class Known(NamedTuple):
    """Describe what may be named: label values by label (None: any), by metric."""

    metrics: Mapping[str, Mapping[str, list[str] | None]]

    def labels(self, metric: str) -> Mapping[str, list[str] | None] | None:
        """The labels of a metric, or None if there is no such metric."""
        return self.metrics.get(metric)


def listed() -> Known:
    """Return the closed list of monitoring/metrics.yml, Prometheus' own metrics, and what the rules record."""
    found: dict[str, dict[str, list[str] | None]] = {}
    target: dict[str, list[str] | None] = dict.fromkeys(TARGET)
    for name, entry in yaml.safe_load((MONITORING / "metrics.yml").read_text()).items():
        labels = {**target, **entry["labels"]}
        if entry.get("type") == "histogram":
            found |= {f"{name}{suffix}": labels for suffix in OF_HISTOGRAM}
            found[f"{name}_bucket"] = {**labels, "le": entry.get("buckets")}
        else:
            found[name] = labels
    found |= {name: dict(target) for name in SCRAPED}
    found["ALERTS"] = dict.fromkeys(("alertname", "alertstate", "severity", "model", "job", "instance"))
    for rule in rules():
        if "record" in rule:
            level = rule["record"].split(":")[0]
            found[rule["record"]] = dict.fromkeys(level.split("_"))
    return Known(found)


def rules() -> Iterator[Mapping[str, Any]]:
    """Yield every rule of every file."""
    for file in sorted((MONITORING / "rules").glob("*.yml")):
        for group in yaml.safe_load(file.read_text())["groups"]:
            yield from group["rules"]


def panels(page: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the panels of a dashboard that ask something."""
    return [panel for panel in page["panels"] if panel["type"] != "row"]


def variables(page: Mapping[str, Any]) -> dict[str, str]:
    """Return what a dashboard begins with in place of its variables."""
    found = dict(RANGES)
    for one in page["templating"]["list"]:
        if one["type"] == "query":
            chosen = one["current"]["value"]
            chosen = chosen[0] if isinstance(chosen, list) else chosen
            found[f"${one['name']}"] = ".*" if chosen == "$__all" else chosen
    return found


def queries(page: Mapping[str, Any]) -> list[str]:
    """The expressions of a dashboard, its annotations' and its variables' too, with values in place of variables."""
    asked = [target["expr"] for panel in panels(page) for target in panel["targets"]]
    asked += [one["expr"] for one in page["annotations"]["list"]]
    for one in page["templating"]["list"]:
        if one["type"] == "query":
            inner = re.fullmatch(r"label_values\((.+), (\w+)\)", one["query"])
            assert inner is not None, one["query"]
            asked.append(f"count by ({inner[2]}) ({inner[1]})")
    values = variables(page)
    return [_replaced(one, values) for one in asked]


def _replaced(expression: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        expression = expression.replace(name, value)
    return expression


def dashboard_queries() -> list[tuple[str, str]]:
    """Return every dashboard's name with each of its expressions."""
    return [(file.stem, query) for file in DASHBOARDS for query in queries(orjson.loads(file.read_text()))]


def unknown(expression: str, known: Known) -> list[str]:
    """Return what an expression names and nobody exposes: metrics, labels, and values of closed labels."""
    found: list[str] = []

    def visit(node: promql.Expr) -> None:
        if isinstance(node, promql.VectorSelector):
            found.extend(_unknown_in(node, known))
        if isinstance(node, promql.AggregateExpr) and node.modifier is not None:
            found.extend(label for label in node.modifier.labels if label not in _labels_below(node, known))

    promql.walk(promql.parse(expression), visit)
    return found


def _unknown_in(selector: promql.VectorSelector, known: Known) -> list[str]:
    labels = known.labels(selector.name)
    if labels is None:
        return [selector.name]
    found = []
    for matcher in selector.matchers.matchers:
        if matcher.name not in labels:
            found.append(matcher.name)
        elif labels[matcher.name] is not None:
            found += [value for value in matcher.value.split("|") if value not in labels[matcher.name]]
    return found


def _labels_below(node: promql.AggregateExpr, known: Known) -> set[str]:
    """Return the labels of everything that an aggregation reads."""
    found: set[str] = set()

    def visit(inner: promql.Expr) -> None:
        if isinstance(inner, promql.VectorSelector):
            found.update(known.labels(inner.name) or ())

    promql.walk(node.expr, visit)
    return found
