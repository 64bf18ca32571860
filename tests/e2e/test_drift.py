"""Drift as an operator sees it: two workers, requests, and Prometheus' page."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from models.card import Card
from models.runtime.predictor import Predictor

pytestmark = pytest.mark.e2e

Open = Callable[[str], Predictor]
INDEX, LIMIT = "lectern_feature_stability_index", "lectern_feature_stability_limit"


@pytest.fixture(scope="module")
def watched(launch: Any) -> Any:
    """Two workers."""
    return launch(LECTERN_WORKERS="2", LECTERN_RUNNERS="embedded")


def gauges(server: Any) -> dict[tuple[str, ...], float]:
    """Return the drift of all models, by name and labels."""
    return {
        (sample.name, *(sample.labels[name] for name in ("model", "feature", "bin") if name in sample.labels)): (
            sample.value
        )
        for family in text_string_to_metric_families(server.get("/metrics").text)
        for sample in family.samples
        if sample.name.startswith("lectern_feature_")
    }


def pictures(feature: Any, count: int, seed: int) -> Iterator[list[Any]]:
    """Grey pictures as bright and contrasted as the training data, by the profile's own bins, without their content."""
    rng = np.random.default_rng(seed)
    edges = np.asarray(feature.edges)
    positions = rng.choice(len(edges) - 1, count, p=feature.shares[1:-1] / feature.shares[1:-1].sum())
    for low, high in zip(edges[positions], edges[positions + 1], strict=True):
        level = int(np.clip((low + high) / 2, 0, 255))
        yield [[level] * 28] * 28


def alarms(server: Any, model: str) -> set[str]:
    found = gauges(server)
    return {
        key[2] for key, value in found.items() if key[:2] == (INDEX, model) and value > found[(LIMIT, model, key[2])]
    }


def send(server: Any, model: str, instances: list[Any]) -> None:
    """Sixteen a request, not faster than they are looked at."""
    for start in range(0, len(instances), 16):
        answer = server.post(model, {"instances": instances[start : start + 16]})
        assert answer.status_code == 200, answer.text
        time.sleep(0.02)
    time.sleep(0.2)


def seen(server: Any, model: str) -> float:
    return gauges(server)[("lectern_feature_window_instances", model)]


def test_everything_is_there_from_the_start(watched: Any, shipped_session: Any, model: str) -> None:
    """Every bin of every feature has its counter and its expected share, and the index is 0."""
    found, profile = gauges(watched), shipped_session(model).manifest.profile
    for feature in profile.features:
        assert found[(INDEX, model, feature.name)] == 0
        assert found[(LIMIT, model, feature.name)] == feature.limit
        for position, share in zip(feature.bins, feature.expected, strict=True):
            assert ("lectern_feature_instances_total", model, feature.name, position) in found
            assert found[("lectern_feature_expected_ratio", model, feature.name, position)] == share


def test_shift_is_seen(watched: Any, shipped_session: Any) -> None:
    """Pictures as bright as the training data's raise no alarm of their brightness; the same, inverted, do."""
    feature = shipped_session("image").manifest.profile.features[0]
    assert feature.name == "brightness"
    usual = list(pictures(feature, 1200, 0))
    before = len(gauges(watched))
    send(watched, "image", [{"pixels": one} for one in usual])
    assert seen(watched, "image") >= 1000
    assert "brightness" not in alarms(watched, "image")
    inverted = [[[255 - one[0][0]] * 28] * 28 for one in pictures(feature, 2000, 1)]
    for start in range(0, 2000, 400):
        send(watched, "image", [{"pixels": one} for one in inverted[start : start + 400]])
        if "brightness" in alarms(watched, "image"):
            break
    assert "brightness" in alarms(watched, "image")
    assert len(gauges(watched)) == before


def test_outlier_on_request(watched: Any, shipped: Open) -> None:
    """A channel a thousand times as large is told from the documentation's, by its level."""
    card: Card[Any, Any, Any] = shipped("viewcount").card
    views = card.example(shipped("viewcount").assets).views
    body = {"instances": [{"views": views}, {"views": [1000 * one for one in views]}], "outlier": True}
    usual, strange = watched.post("viewcount", body).json()["outliers"]
    assert usual["score"] < 1.5
    assert (strange["feature"], strange["score"] > 3) == ("level", True)
