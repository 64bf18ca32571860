"""The kinds of panels that the dashboards are made of, over Grafana's own builders.

Every panel says what it shows: title, unit, queries with a legend each, and a sentence of description where the title
does not say it all.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from grafana_foundation_sdk.builders import barchart, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models.common import (
    AxisPlacement,
    BigValueColorMode,
    BigValueGraphMode,
    GraphTresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    VariableHide,
    VariableOption,
    VariableRefresh,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

Panel = Any  # the builders share no type
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
REQUESTS, SECONDS, SHARE, BYTES, COUNT, TIMES = "reqps", "s", "percentunit", "bytes", "short", "suffix: ×"
BYTES_PER_SECOND = "binBps"
THIRD, HALF, WHOLE = 8, 12, 24
TALL = 7
# Of outcomes that are shown on several pages.
COLOURS = {"ok": "green", "invalid_request": "blue", "overloaded": "orange", "deadline_exceeded": "red"}


class Query(NamedTuple):
    """An expression, and how its series are called."""

    expression: str
    legend: str


def _targets(queries: Sequence[Query], *, now: bool = False) -> list[prometheus.Dataquery]:
    found = []
    for index, query in enumerate(queries):
        target = prometheus.Dataquery().expr(query.expression).legend_format(query.legend).ref_id(chr(ord("A") + index))
        found.append(target.instant().format(PromQueryFormat.TABLE) if now else target.range())
    return found


def _common(panel: Panel, title: str, unit: str, width: int, height: int, description: str) -> Panel:
    panel = panel.title(title).unit(unit).span(width).height(height).datasource(SOURCE)
    return panel.description(description) if description else panel


def lines(
    title: str,
    unit: str,
    *queries: Query,
    width: int = HALF,
    description: str = "",
    is_stacked: bool = False,
    limit: float | None = None,
) -> Panel:
    """Lines over time, from zero; ``limit`` is a red line at that height."""
    panel = _common(timeseries.Panel(), title, unit, width, TALL, description)
    panel = panel.targets(_targets(queries)).min(0).line_width(1).fill_opacity(30 if is_stacked else 5)
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    panel = panel.legend(legend.show_legend(True))
    for name, colour in COLOURS.items():
        fixed = DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": colour})
        panel = panel.override_by_name(name, [fixed])
    panel = panel.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    if is_stacked:
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    if limit is not None:
        steps = [Threshold(value=None, color="green"), Threshold(value=limit, color="red")]
        panel = panel.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        panel = panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphTresholdsStyleMode.LINE))
    return panel


def number(title: str, unit: str, expression: str, *, red_above: float | None = None, description: str = "") -> Panel:
    """Return one large number; its colour changes above a bound."""
    panel = _common(stat.Panel(), title, unit, 4, 4, description)
    panel = panel.targets(_targets([Query(expression, title)])).graph_mode(BigValueGraphMode.AREA).no_value("none")
    panel = panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    if red_above is None:
        return panel.color_mode(BigValueColorMode.NONE)
    steps = [Threshold(value=None, color="green"), Threshold(value=red_above, color="red")]
    panel = panel.color_mode(BigValueColorMode.VALUE)
    return panel.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))


def bars(title: str, by: str, *queries: Query, repeat: str | None = None, width: int = THIRD) -> Panel:
    """Shares beside each other, one group of bars per value of the label ``by``, as they are now."""
    panel = _common(barchart.Panel(), title, SHARE, width, TALL, "")
    panel = panel.targets(_targets(queries, now=True)).x_field(by).min(0).axis_placement(AxisPlacement.LEFT)
    panel = panel.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
    names = {f"Value #{chr(ord('A') + index)}": query.legend for index, query in enumerate(queries)}
    panel = panel.with_transformation(DataTransformerConfig(id_val="joinByField", options={"byField": by}))
    hidden = {f"Time{suffix}": True for suffix in ("", *(f" {index + 1}" for index in range(len(queries))))}
    panel = panel.with_transformation(
        DataTransformerConfig(id_val="organize", options={"renameByName": names, "excludeByName": hidden})
    )
    return panel.repeat(repeat).repeat_direction("h") if repeat else panel


def rows(title: str, unit: str, query: Query, *, width: int = HALF) -> Panel:
    """Return a table of the series as they are now: their labels, and a value called by the query's legend."""
    panel = _common(table.Panel(), title, unit, width, TALL, "")
    options = {"excludeByName": {"Time": True, "__name__": True}, "renameByName": {"Value": query.legend}}
    panel = panel.targets(_targets([query], now=True)).show_header(True)
    return panel.with_transformation(DataTransformerConfig(id_val="organize", options=options))


def choice(
    name: str, label: str, query: str, current: str | None = None, *, several: bool = False, hide: bool = False
) -> dashboard.QueryVariable:
    """Return a variable with the values of a label; ``current`` is what it begins with, or everything."""
    values = "$__all" if current is None else current
    text = "All" if current is None else current
    variable = dashboard.QueryVariable(name).label(label).datasource(SOURCE).query(query)
    variable = variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).multi(several).include_all(current is None)
    if hide:
        variable = variable.hide(VariableHide.HIDE_VARIABLE)
    shown = [values] if several else values
    return variable.current(VariableOption(selected=True, text=[text] if several else text, value=shown))


def board(uid: str, title: str, description: str, variables: Sequence[Any]) -> dashboard.Dashboard:
    """Return an empty dashboard that links to the others and shows where alerts fired."""
    fired = 'ALERTS{alertstate="firing", alertname=~"Lectern.*"}'
    found = dashboard.Dashboard(title).uid(uid).description(description).tags(["lectern"]).readonly()
    found = found.time("now-1h", "now").refresh("30s").timezone("browser").tooltip(DashboardCursorSync.CROSSHAIR)
    link = dashboard.DashboardLink("Lectern").icon("external link").type(DashboardLinkType.DASHBOARDS).tags(["lectern"])
    found = found.link(link.as_dropdown(True).keep_time(True).include_vars(False))
    found = found.annotation(
        dashboard.AnnotationQuery().name("Alerts").datasource(SOURCE).enable(True).icon_color("red").expr(fired)
    )
    found = found.with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    for variable in variables:
        found = found.with_variable(variable)
    return found
