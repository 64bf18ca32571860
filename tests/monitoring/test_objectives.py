"""The alert rules keep to the same objectives as load tests, capacity, MLPerf and the dashboards."""

import re
from typing import Any

import pytest
import yaml

from loadtests.objectives import OBJECTIVES, Promise, read_objectives
from models.paths import REPOSITORY
from models.registry import FAMILIES
from service.telemetry.metrics import LATENCY_BUCKETS

RULES = REPOSITORY / "monitoring" / "rules"
BUCKET = re.compile(r"lectern_request_seconds_bucket\{(.*?)\}")


def expressions(file: str) -> dict[str, str]:
    """Return the expressions of a rule file, by the names of their series or alerts."""
    groups: list[Any] = yaml.safe_load((RULES / file).read_text())["groups"]
    return {rule.get("record") or rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def selectors(promise: Promise) -> set[str]:
    """Return what a rule counts by to know which requests were in time."""
    own = {name: one.p99_ms for name, one in promise.models.items() if one.p99_ms is not None}
    rest = f'model!="{next(iter(own))}"' if len(own) == 1 else f'model!~"{"|".join(own)}"'
    return {f'le="{ms / 1000}", model="{name}"' for name, ms in own.items()} | {f'le="{promise.p99_ms / 1000}", {rest}'}


def test_late_is_what_the_objectives_call_late() -> None:
    """Every rule that counts requests in time does so by each model's own bound."""
    counting = {
        name: set(found) for name, expr in expressions("objectives.yml").items() if (found := BUCKET.findall(expr))
    }
    assert len(counting) == 3
    assert all(found == selectors(read_objectives()) for found in counting.values()), counting


def test_bounds_are_those_of_the_histogram() -> None:
    """Otherwise nothing could be counted by them."""
    promise = read_objectives()
    bounds = [promise.p99_ms, *(one.p99_ms for one in promise.models.values() if one.p99_ms is not None)]
    assert {bound / 1000 for bound in bounds} <= set(LATENCY_BUCKETS)


def test_waiting_is_an_alert_at_half_of_each_objective() -> None:
    """A model that the objectives name has its own bound, and all others the common one."""
    promise = read_objectives()
    own = {name: one.p99_ms for name, one in promise.models.items() if one.p99_ms is not None}
    found = re.findall(r'model(!?=)"(\w+)"} > ([\d.]+)', expressions("alerts_load.yml")["LecternQueueDelays"])
    wanted = {("=", name, ms / 2000) for name, ms in own.items()}
    assert {(how, name, float(bound)) for how, name, bound in found} == wanted | {
        ("!=", name, promise.p99_ms / 2000) for name in own
    }


@pytest.mark.parametrize(("kind", "share"), [("failed", read_objectives().error_share), ("slow", 0.01)])
def test_budgets_are_those_of_the_objectives(kind: str, share: float) -> None:
    """Whatever multiple of it burns."""
    burning = [expr for expr in expressions("alerts_objectives.yml").values() if f"requests_{kind}:ratio" in expr]
    assert len(burning) == 2
    for expr in burning:
        shares = re.findall(r":ratio_rate\w+ > (?:[\d.]+ \* )?([\d.]+)", expr)
        assert len(shares) == 4
        assert {float(one) for one in shares} == {share}


@pytest.mark.parametrize("family", [family.name for family in FAMILIES])
def test_dashboards_turn_red_at_the_objective(family: str) -> None:
    """Of a family's models."""
    page = (RULES.parent / "dashboards" / f"{family}.json").read_text()
    assert page.count(f'"value": {read_objectives().of([family]).p99_ms / 1000}\n') == 2


def test_models_of_their_own_are_held_to_theirs(tmp_path: Any) -> None:
    """The control: another objective is another selector."""
    file = tmp_path / "objectives.toml"
    file.write_text(OBJECTIVES.read_text().replace("p99_ms = 50", "p99_ms = 25"))
    assert selectors(read_objectives(file)) != selectors(read_objectives())
