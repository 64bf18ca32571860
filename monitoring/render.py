"""Pictures of the dashboards: their own queries, asked of a real Prometheus and drawn as Grafana lays them out.

``python -m monitoring.render --url http://127.0.0.1:9090 --minutes 6 --out docs/pictures``; no registry of
packages carries Grafana, so this is how the dashboards are looked at.
"""

import argparse
import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

from monitoring.dashboards import FOLDER
from monitoring.local_prometheus import Prometheus
from monitoring.panels import TIMES

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

COLUMNS, WIDTH_INCHES, ROW_INCHES = 24, 15.0, 0.36
COLOURS = pyplot.get_cmap("tab20").colors[::2] + pyplot.get_cmap("tab20").colors[1::2]  # type: ignore[attr-defined]
MOST_LEGENDS = 8
RED, GREEN, GREY = "#c4162a", "#37872d", "#8a94a3"
Panel = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Describe what is looked at.

    Attributes:
        prometheus: Whom to ask.
        start: Unix time.
        end: Unix time.
        variables: What stands in place of Grafana's, e.g. ``$model``.
    """

    prometheus: Prometheus
    start: float
    end: float
    variables: Mapping[str, str]

    def filled(self, text: str) -> str:
        """Return a text with values in place of variables."""
        for name, value in self.variables.items():
            text = text.replace(name, value)
        return text

    def over_time(self, expression: str) -> list[Mapping[str, Any]]:
        """Return its series, at 200 moments."""
        step = max((self.end - self.start) / 200, 1.0)
        return self.prometheus.query_range(self.filled(expression), self.start, self.end, step)

    def now(self, expression: str) -> list[Mapping[str, Any]]:
        """Return its series at the end."""
        return self.prometheus.query(self.filled(expression), time=self.end)


def amount(value: float, unit: str) -> str:
    """Return a number for people."""
    if math.isnan(value):
        return "–"
    if unit == "percentunit":
        return f"{_plain(value * 100)} %"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"
    if unit == "bytes":
        return f"{value / 2**20:,.0f} MiB"
    return _plain(value) + {"reqps": "/s", "cps": "/s", "d": " d", TIMES: " ×"}.get(unit, "")


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _legend(template: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), template).strip()


def _lines(axes: Axes, panel: Panel, view: View) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    is_stacked = defaults.get("custom", {}).get("stacking", {}).get("mode") == "normal"
    found = [
        (_legend(target["legendFormat"], one["metric"]), one["values"])
        for target in panel["targets"]
        for one in view.over_time(target["expr"])
    ]
    moments = sorted({moment for _, values in found for moment, _ in values})
    minutes = [(moment - view.start) / 60 for moment in moments]
    table = [[float(dict(map(tuple, values)).get(moment, "nan")) for moment in moments] for _, values in found]
    names = [name for name, _ in found]
    chosen = [_colour(panel, name, index) for index, name in enumerate(names)]
    if is_stacked and table:
        filled = [[0.0 if math.isnan(value) else value for value in row] for row in table]
        axes.stackplot(minutes, filled, labels=names, colors=chosen, alpha=0.75, lw=0)
    else:
        for name, row, colour in zip(names, table, chosen, strict=True):
            axes.plot(minutes, row, lw=1, label=name, color=colour)
    _finish(axes, panel, view, len(names))


def _colour(panel: Panel, name: str, index: int) -> Any:
    """Return the panel's own for this name, else the next one."""
    for one in panel["fieldConfig"]["overrides"]:
        if one["matcher"] == {"id": "byName", "options": name}:
            return {"green": GREEN, "red": RED, "orange": "#ff9830", "blue": "#5794f2"}[
                one["properties"][0]["value"]["fixedColor"]
            ]
    return COLOURS[index % len(COLOURS)]


def _finish(axes: Axes, panel: Panel, view: View, series: int) -> None:
    """Scale, limit and legend of lines."""
    defaults = panel["fieldConfig"]["defaults"]
    axes.set_xlim(0, (view.end - view.start) / 60)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: amount(value, defaults["unit"])))
    axes.grid(alpha=0.25)
    low, high = axes.get_ylim()
    limits = [step["value"] for step in defaults.get("thresholds", {}).get("steps", []) if step["value"] is not None]
    if not series:
        axes.text(0.5, 0.5, "nothing", transform=axes.transAxes, ha="center", color=GREY, fontsize=8)
    for limit in limits:
        if series and limit < 4 * max(high, 1e-9):  # one far away would flatten everything below it
            axes.axhline(limit, color=RED, lw=0.8, ls="--")
            high = max(high, limit * 1.1)
    axes.set_ylim(0, high if high > abs(low) else 1)
    handles, names = axes.get_legend_handles_labels()
    if len(names) > MOST_LEGENDS:
        names = [*names[: MOST_LEGENDS - 1], f"and {len(names) - MOST_LEGENDS + 1} more"]
    position: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.13), "ncol": 4, "fontsize": 6}
    axes.legend(handles[: len(names)], names, handlelength=1, columnspacing=1, frameon=False, **position)


def _number(axes: Axes, panel: Panel, view: View) -> None:
    defaults, (target,) = panel["fieldConfig"]["defaults"], panel["targets"]
    series = view.over_time(target["expr"])
    axes.axis("off")
    values = [float(value) for _, value in series[0]["values"]] if series else []
    last = next((value for value in reversed(values) if not math.isnan(value)), math.nan)
    bounds = [one["value"] for one in defaults.get("thresholds", {}).get("steps", []) if one["value"] is not None]
    colour = "black" if not bounds else RED if last >= bounds[0] else GREEN
    text = amount(last, defaults["unit"]) if values else defaults["noValue"]
    axes.text(0.5, 0.6, text, ha="center", va="center", fontsize=15, color=colour, transform=axes.transAxes)
    if len(values) > 1:
        spark = axes.inset_axes((0.0, 0.0, 1.0, 0.3))
        spark.plot(values, lw=0.8, color=colour, alpha=0.5)
        spark.axis("off")


def _bars(axes: Axes, panel: Panel, view: View) -> None:
    found = {
        target["legendFormat"]: {one["metric"]["bin"]: float(one["value"][1]) for one in view.now(target["expr"])}
        for target in panel["targets"]
    }
    bins = sorted({name for shares in found.values() for name in shares})
    for index, (name, shares) in enumerate(found.items()):
        positions = [position + (index - 0.5) * 0.4 for position in range(len(bins))]
        heights = [shares.get(one, 0.0) for one in bins]
        axes.bar(positions, heights, 0.4, label=name, color=(COLOURS[0], GREY)[index])
    axes.set_xticks(range(len(bins)), bins, rotation=90 if max(map(len, bins), default=0) > 3 else 0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: amount(value, "percentunit")))
    axes.legend(fontsize=6, frameon=False)


def _rows(axes: Axes, panel: Panel, view: View) -> None:
    (target,) = panel["targets"]
    axes.axis("off")
    found = view.now(target["expr"])
    labels = [name for name in (found[0]["metric"] if found else ()) if name not in ("__name__", "job")]
    unit = panel["fieldConfig"]["defaults"]["unit"]
    cells = [[one["metric"].get(name, "") for name in labels] + [amount(float(one["value"][1]), unit)] for one in found]
    if not cells:
        return
    shown = axes.table(cells[:14], colLabels=[*labels, target["legendFormat"]], loc="upper center", edges="horizontal")
    shown.auto_set_font_size(False)
    shown.set_fontsize(6)
    shown.auto_set_column_width(list(range(len(labels) + 1)))


DRAW = {"timeseries": _lines, "stat": _number, "barchart": _bars, "table": _rows}


def _expanded(page: Mapping[str, Any], view: View) -> Iterator[tuple[Panel, View]]:
    """Yield the panels; one that repeats once for every value of its variable, three in a row."""
    for panel in page["panels"]:
        if not panel.get("repeat"):
            yield panel, view
            continue
        name, position = f"${panel['repeat']}", panel["gridPos"]
        (variable,) = [one for one in page["templating"]["list"] if f"${one['name']}" == name]
        label = variable["query"].rpartition(", ")[2].rstrip(")")
        selector = variable["query"].removeprefix("label_values(").rpartition(", ")[0]
        values = sorted(one["metric"][label] for one in view.now(f"count by ({label}) ({selector})"))
        for index, value in enumerate(values):
            x, y = index % 3 * position["w"], position["y"] + index // 3 * position["h"]
            inner = {**view.variables, name: value}
            yield (
                {**panel, "gridPos": {**position, "x": x, "y": y}},
                View(prometheus=view.prometheus, start=view.start, end=view.end, variables=inner),
            )


def _axes(figure: Figure, position: Mapping[str, int], rows: int) -> Axes:
    left, right = position["x"] / COLUMNS, (position["x"] + position["w"]) / COLUMNS
    top, bottom = 1 - position["y"] / rows, 1 - (position["y"] + position["h"]) / rows
    bounds = (left + 0.04, bottom + 1.8 / rows, right - left - 0.05, top - bottom - 2.8 / rows)
    found: Axes = figure.add_axes(bounds)
    return found


def draw(page: Mapping[str, Any], view: View, path: Path) -> None:
    """Write one dashboard as it looks with what happened between ``start`` and ``end``."""
    shown = list(_expanded(page, view))
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel, _ in shown) + 1
    figure = pyplot.figure(figsize=(WIDTH_INCHES, rows * ROW_INCHES))
    for panel, seen in shown:
        position = panel["gridPos"]
        if panel["type"] == "row":
            figure.text(0.01, 1 - (position["y"] + 0.7) / rows, panel["title"], fontsize=10, weight="bold")
            continue
        axes = _axes(figure, position, rows)
        axes.set_title(seen.filled(panel["title"]), fontsize=7.5, loc="left")
        axes.tick_params(labelsize=6)
        DRAW[panel["type"]](axes, panel, seen)
    figure.savefig(path, dpi=75)
    pyplot.close(figure)


def variables(page: Mapping[str, Any], minutes: float, chosen: str | None) -> dict[str, str]:
    """Return what a dashboard's variables begin with, or a chosen model."""
    found = {"$__rate_interval": "30s", "$__range": f"{round(minutes * 60)}s"}
    for one in page["templating"]["list"]:
        if one["type"] == "query":
            value = one["current"]["value"]
            value = value[0] if isinstance(value, list) else value
            found[f"${one['name']}"] = ".*" if value == "$__all" else value
    return {**found, **({"$model": chosen} if chosen else {})}


def main() -> None:
    """Draw every dashboard."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.render", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:9090", help="of Prometheus (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=6, help="to look back (default %(default)s)")
    parser.add_argument("--drift-model", default="image", help="whose features the page of drift shows (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures")
    given = parser.parse_args()
    end = time.time()
    for file in sorted(FOLDER.glob("*.json")):
        page = json.loads(file.read_text())
        values = variables(page, given.minutes, given.drift_model if file.stem == "drift" else None)
        prometheus = Prometheus(given.url, process=None)  # type: ignore[arg-type]
        view = View(prometheus=prometheus, start=end - given.minutes * 60, end=end, variables=values)
        draw(page, view, given.out / f"dashboard-{file.stem}.png")


if __name__ == "__main__":
    main()
