"""Alerts fire when they should and stay silent when they should, and each has its entry in the runbook."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.request import url2pathname

import pytest
import yaml

from models.paths import REPOSITORY
from monitoring.local_prometheus import DOCS_LABEL, ScrapeTarget, configuration
from tests.monitoring.conftest import Promtool

MONITORING = REPOSITORY / "monitoring"
RUNBOOK = REPOSITORY / "docs" / "runbook.md"
RULES = sorted((MONITORING / "rules").glob("*.yml"))
CASES = sorted((MONITORING / "tests").glob("*.yml"))


def alerts(files: list[Path]) -> dict[str, Mapping[str, Any]]:
    """Return the alerts of rule files, by name."""
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


ALERTS = alerts(RULES)


def kinds(name: str, tests: list[Mapping[str, Any]]) -> set[str]:
    """Return whether an alert has a test in which it fires, and one in which it could and does not."""
    found = set()
    for test in tests:
        asked = [one for one in test["alert_rule_test"] if one["alertname"] == name]
        if test["name"].startswith(f"{name} fires: ") and any(one.get("exp_alerts") for one in asked):
            found.add("fires")
        if test["name"].startswith(f"{name} silent: ") and asked and not any(one.get("exp_alerts") for one in asked):
            found.add("silent")
    return found


def all_tests() -> list[Mapping[str, Any]]:
    return [test for file in CASES for test in yaml.safe_load(file.read_text())["tests"]]


def faults(name: str, rule: Mapping[str, Any], runbook: str) -> list[str]:
    """Return what an alert lacks to be of use to whoever it wakes up."""
    notes = rule["annotations"]
    lacks = [key for key in ("summary", "description") if len(notes.get(key, "")) < 20]
    if rule["labels"]["severity"] not in ("page", "ticket"):
        lacks.append("severity")
    if notes.get("runbook_url") != f"{{{{ $externalLabels.{DOCS_LABEL} }}}}/runbook.md#{name.lower()}":
        lacks.append("runbook_url")
    entry = re.search(rf"^### {name}\n\n(.+?)(?=\n##|\Z)", runbook, re.MULTILINE | re.DOTALL)
    if entry is None or len(entry[1]) < 100:
        lacks.append("runbook entry")
    return lacks


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_says_what_to_do(name: str) -> None:
    """Severity, summary, description, and an entry in the runbook that it links to."""
    assert not faults(name, ALERTS[name], RUNBOOK.read_text())


def test_what_an_alert_lacks_is_found() -> None:
    """The control: nothing of it is there."""
    bare = {"labels": {"severity": "sms"}, "annotations": {"summary": "Down"}}
    assert faults("Bare", bare, "# Runbook\n\n### Other\n\nText.\n") == [
        "summary", "description", "severity", "runbook_url", "runbook entry",
    ]  # fmt: skip


def test_links_to_the_runbook_are_absolute() -> None:
    """One setting says where it is read; ``make monitor`` means the checkout's own, which is there."""
    shipped = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    assert shipped["global"]["external_labels"][DOCS_LABEL].startswith("https://")
    assert {"action": "labeldrop", "regex": DOCS_LABEL} in shipped["alerting"]["alert_relabel_configs"]
    here = configuration(ScrapeTarget(address="127.0.0.1:3000"))["global"]["external_labels"][DOCS_LABEL]
    assert Path(url2pathname(here.removeprefix("file://"))) / "runbook.md" == RUNBOOK  # a path may have blanks


def test_the_runbook_has_no_other_entries() -> None:
    """An entry for an alert that is no more would be believed."""
    assert set(re.findall(r"^### (\w+)", RUNBOOK.read_text(), re.MULTILINE)) == set(ALERTS)


def test_the_runbook_links_to_entries() -> None:
    """Within itself, too."""
    links = re.findall(r"\]\(#(\w+)\)", RUNBOOK.read_text())
    assert links
    assert set(links) <= {name.lower() for name in ALERTS}


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_both_tests(name: str) -> None:
    """One that makes it fire, one that keeps it silent."""
    assert kinds(name, all_tests()) == {"fires", "silent"}


@pytest.mark.parametrize("kind", ["fires", "silent"])
def test_a_missing_test_is_found(kind: str) -> None:
    """The control."""
    kept = [test for test in all_tests() if not test["name"].startswith(f"LecternDown {kind}: ")]
    assert kinds("LecternDown", kept) == {"fires", "silent"} - {kind}


def test_promtool_takes_the_configuration(promtool: Promtool) -> None:
    """And every rule that it names."""
    done = promtool("check", "config", MONITORING / "prometheus.yml")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("SUCCESS") >= len(RULES)


def test_alerts_fire_and_are_silent(promtool: Promtool) -> None:
    """What every test of a rule expects."""
    done = promtool("test", "rules", *CASES)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("kind", "expression"), [("fires", "vector(0) > 1"), ("silent", "vector(1)")])
def test_broken_alerts_are_found(kind: str, expression: str, promtool: Promtool, tmp_path: Path) -> None:
    """The control: when no alert ever fires every test of firing is red; when all always do, every test of silence."""
    copy = tmp_path / "monitoring"
    shutil.copytree(MONITORING, copy)
    for file in (copy / "rules").glob("*.yml"):
        page = yaml.safe_load(file.read_text())
        for group in page["groups"]:  # what is recorded no alert reads any more, and it takes its time
            group["rules"] = [{**rule, "expr": expression, "for": "0s"} for rule in group["rules"] if "alert" in rule]
        file.write_text(yaml.safe_dump(page))
    done = promtool("test", "rules", *sorted((copy / "tests").glob("*.yml")))
    red = set(re.findall(r"name: (.+),$", done.stderr + done.stdout, re.MULTILINE))
    assert {test["name"] for test in all_tests() if f" {kind}: " in test["name"]} <= red


def test_rules_are_evaluated_in_order() -> None:
    """Every test of an alert that reads recorded series says the order of the groups, or its result is chance."""
    for file in CASES:
        page = yaml.safe_load(file.read_text())
        groups = [
            group["name"]
            for name in page["rule_files"]
            for group in yaml.safe_load((file.parent / name).read_text())["groups"]
        ]
        recorded = any(name.endswith(("objectives.yml", "shares.yml")) for name in page["rule_files"])
        if recorded:
            order = page["group_eval_order"]
            assert set(order) <= set(groups), file
            assert order[-1] == groups[-1], file
