"""Rules and dashboards name only what is exposed, and the dashboards are those that their script writes."""

from typing import Any

import orjson
import promql_parser
import pytest
import yaml

from models.registry import FAMILIES
from monitoring import dashboards
from tests.monitoring.expressions import DASHBOARDS, MONITORING, dashboard_queries, listed, panels, rules, unknown

KNOWN = listed()
RULES = [(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()]
PAGES = {file.stem: orjson.loads(file.read_text()) for file in DASHBOARDS}


@pytest.mark.parametrize(("name", "expression"), RULES, ids=[name for name, _ in RULES])
def test_rules_name_what_there_is(name: str, expression: str) -> None:
    """Metrics, labels, and the values of closed labels."""
    assert not unknown(expression, KNOWN)


@pytest.mark.parametrize("name", PAGES)
def test_dashboards_name_what_there_is(name: str) -> None:
    """In panels, annotations and variables."""
    asked = [query for page, query in dashboard_queries() if page == name]
    assert len(asked) > 8
    assert {query: unknown(query, KNOWN) for query in asked if unknown(query, KNOWN)} == {}


@pytest.mark.parametrize(
    ("expression", "name"),
    [
        ("rate(lectern_request_total[5m])", "lectern_request_total"),
        ("sum(lectern_request_seconds)", "lectern_request_seconds"),
        ('lectern_requests_total{code="ok"}', "code"),
        ('sum(rate(lectern_requests_total{outcome=~"ok|failed"}[5m]))', "failed"),
        ('lectern_request_seconds_bucket{le="0.3"}', "0.3"),
        ("sum by (stage) (rate(lectern_requests_total[5m]))", "stage"),
        ("max_over_time((job_model:lectern_nothing:rate5m > 1)[1h:5m])", "job_model:lectern_nothing:rate5m"),
        ("label_replace(up, 'a', 'b', 'c', 'd') * on (job) group_left lectern_planted_total", "lectern_planted_total"),
    ],
)
def test_an_unknown_name_is_found(expression: str, name: str) -> None:
    """The control."""
    assert unknown(expression, KNOWN) == [name]


def test_every_expression_reads_something() -> None:
    """An expression that names nothing would pass every test above."""
    for expression in [*(expr for _, expr in RULES), *(query for _, query in dashboard_queries())]:
        assert "lectern" in promql_parser.parse(expression).prettify().lower()


def test_there_is_a_page_for_everything() -> None:
    """Overview, jobs, drift, and one for each family."""
    assert set(PAGES) == {"overview", "jobs", "drift", *(family.name for family in FAMILIES)}
    assert len({page["uid"] for page in PAGES.values()}) == len(PAGES)


def faults(page: dict[str, Any]) -> list[str]:
    """Panels of a dashboard that do not say what they show, or lie over another one."""
    found, taken = [], set[tuple[int, int]]()
    for panel in panels(page):
        if not panel.get("title") or not panel["fieldConfig"]["defaults"].get("unit"):
            found.append(f"{panel['title']}: no title or unit")
        if any(not target.get("legendFormat") for target in panel["targets"]) or not panel["targets"]:
            found.append(f"{panel['title']}: no legend")
        position = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(position["x"], position["x"] + position["w"])
            for y in range(position["y"], position["y"] + position["h"])
        }
        if cells & taken or position["x"] + position["w"] > 24:
            found.append(f"{panel['title']}: lies over another")
        taken |= cells
    return found


@pytest.mark.parametrize("name", PAGES)
def test_panels_say_what_they_show(name: str) -> None:
    """Title, unit, legends, and a place of their own."""
    page = PAGES[name]
    assert not faults(page)
    assert len({panel["id"] for panel in page["panels"]}) == len(page["panels"])


def test_a_bare_panel_is_found() -> None:
    """The control."""
    position = {"x": 20, "y": 0, "w": 8, "h": 7}
    bare = {
        "type": "stat",
        "title": "",
        "fieldConfig": {"defaults": {}},
        "targets": [{"expr": "up"}],
        "gridPos": position,
    }
    assert len(faults({"panels": [bare, bare]})) == 6


def test_dashboards_are_up_to_date() -> None:
    """The committed files are what ``make dashboards`` writes."""
    written = {file.name: file.read_text() for file in DASHBOARDS}
    assert written == dashboards.pages()


def test_provisioning_fits() -> None:
    """The source that the provisioning makes is what the dashboards ask; their folder is the one it reads."""
    folder = MONITORING / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "lectern.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((folder / "dashboards" / "lectern.yml").read_text())["providers"]
    assert source["type"] == "prometheus"
    assert provider["options"]["path"] == "/etc/grafana/dashboards/lectern"
    for page in PAGES.values():
        (chosen,) = [one for one in page["templating"]["list"] if one["type"] == "datasource"]
        assert chosen["name"] == "datasource"
        assert chosen["query"] == source["type"]
