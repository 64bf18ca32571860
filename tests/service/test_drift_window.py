"""The window of all workers: its index by heart, whoever counted or was asked; another version begins it anew."""

import math
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from models.artifact.drift_profile import Feature, Profile, stability_index
from models.artifact.manifest import Manifest
from models.runtime.session import Session
from service.telemetry.drift_window import COUNTS, FILE, STRAYS, DriftWindows

LEVEL = Feature(
    name="level",
    unit="m",
    split="train",
    instances=1000,
    independent=1000.0,
    edges=[0.0, 1.0, 2.0],
    kinds=[],
    expected=[0.001, 0.499, 0.499, 0.001],
    limit=0.1,
)
TAG = replace(LEVEL, name="tag", edges=[], kinds=['a "quoted" \\ word', "b"], expected=[0.5, 0.5])
PROFILE = Profile(window=1000, features=[LEVEL, TAG])


class Counted:
    """The counters of a few workers, as their scrape shows them added up."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ["model", "feature"]
        self.counts = Counter(COUNTS, "Counts.", [*labels, "bin"], registry=self.registry)
        self.strays = Counter(STRAYS, "Strays.", labels, registry=self.registry)

    def add(self, *counts: float) -> "Counted":
        """Instances below the range, in its two bins, and above; as many of the first tag."""
        for position, number in zip(LEVEL.bins, counts, strict=True):
            self.counts.labels("m", "level", position).inc(number)
        self.counts.labels("m", "tag", TAG.kinds[0]).inc(sum(counts) / 2)
        self.counts.labels("m", "tag", "b").inc(sum(counts) / 2)
        self.strays.labels("m", "level").inc(counts[0] + counts[-1])
        return self

    @property
    def text(self) -> str:
        return generate_latest(self.registry).decode()


@pytest.fixture
def manifest(shipped_session: object) -> Manifest:
    """A model with two features."""
    session: Session = shipped_session("viewcount")  # type: ignore[operator]
    return replace(session.manifest, model="m", digest="first", profile=PROFILE)


def look(
    windows: DriftWindows, counted: Counted, name: str = "lectern_feature_stability_index", **labels: str
) -> float:
    """Return one gauge of a scrape."""
    text = windows.add_to(counted.text)
    assert text.startswith(counted.text)
    wanted = {"model": "m", "feature": "level", **labels}
    (found,) = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and sample.labels.items() >= wanted.items()
    ]
    return found


def size(windows: DriftWindows, counted: Counted) -> float:
    text = windows.add_to(counted.text)
    return float(text.split('lectern_feature_window_instances{model="m"} ')[1].split("\n")[0])


def test_index_of_the_window(manifest: Manifest) -> None:
    """0 until there are enough; then the index of the counts: of a planted shift, by heart, above the limit."""
    windows, counted = DriftWindows(None, lambda: [manifest]), Counted()
    assert look(windows, counted.add(0, 0, 900, 0)) == 0.0
    assert (size(windows, counted), look(windows, counted, "lectern_feature_out_of_range_ratio")) == (900, 0)
    index = look(windows, counted.add(0, 0, 100, 0))
    assert index == pytest.approx((0.499 - 0.001) * math.log(499) + (1 - 0.499) * math.log(1 / 0.499))
    assert index > look(windows, counted, "lectern_feature_stability_limit") == 0.1
    assert look(windows, counted, feature="tag") == pytest.approx(0.0)


def test_usual_requests_are_quiet(manifest: Manifest) -> None:
    """Control: the expected shares give no index worth the name; permuted bins do."""
    assert look(DriftWindows(None, lambda: [manifest]), Counted().add(1, 499, 499, 1)) < 0.001
    assert look(DriftWindows(None, lambda: [manifest]), Counted().add(499, 1, 499, 1)) > 1


def test_it_forgets(manifest: Manifest) -> None:
    """After a shift has passed, a window of usual requests is quiet again; a scrape in between does not matter."""
    windows, counted = DriftWindows(None, lambda: [manifest]), Counted().add(0, 0, 5000, 0)
    assert look(windows, counted) > 1
    for _ in range(12):
        look(windows, counted.add(0, 50, 50, 0))
    assert size(windows, counted) <= 1200
    assert look(windows, counted) < 0.01


def test_new_shift_within_two_windows(manifest: Manifest) -> None:
    """After a day of usual requests, a shift is seen before 1,000 of it have come, scraped every 50."""
    windows, counted = DriftWindows(None, lambda: [manifest]), Counted().add(0, 50_000, 50_000, 0)
    look(windows, counted)
    seen = 50
    while look(windows, counted.add(0, 0, 0, 50)) <= 0.1 and seen < 2000:
        seen += 50
    assert seen <= 1000
    assert look(windows, counted.add(0, 0, 0, 1000), "lectern_feature_out_of_range_ratio") > 0.9


def test_any_worker_may_be_asked(manifest: Manifest, tmp_path: Path) -> None:
    """Two workers that are scraped in turn say what one says that is scraped alone: the marks are theirs together."""
    one, counted = DriftWindows(None, lambda: [manifest]), Counted()
    two = [DriftWindows(tmp_path, lambda: [manifest]) for _ in range(2)]
    for turn in range(40):
        counted.add(0, 60, 40 + turn, 0)
        assert look(two[turn % 2], counted) == look(one, counted)
    assert (tmp_path / FILE).exists()
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    alone = DriftWindows(
        None, lambda: [manifest]
    )  # a worker that has never been asked takes everything since the start
    assert look(alone, counted) != look(one, counted)


def test_merged_counts_are_one_workers(manifest: Manifest) -> None:
    """The index of merged counts is that of all requests together, and not the mean of the workers' own."""
    first, second = np.array([0.0, 900, 100, 0]), np.array([0.0, 100, 900, 0])
    together = look(DriftWindows(None, lambda: [manifest]), Counted().add(*first).add(*second))
    assert together == pytest.approx(float(stability_index(LEVEL.shares, first + second)))
    assert together < 0.01 < stability_index(LEVEL.shares, first)


def test_another_version(manifest: Manifest) -> None:
    """A new digest begins the window anew: not one instance of the old version's bins is in it."""
    served = [manifest]
    windows, counted = DriftWindows(None, lambda: served), Counted().add(0, 0, 5000, 0)
    assert look(windows, counted) > 1
    served[0] = replace(manifest, digest="second", profile=replace(PROFILE, features=[LEVEL]))
    assert (look(windows, counted), size(windows, counted)) == (0.0, 0.0)
    assert look(windows, counted.add(0, 500, 500, 0)) < 0.01
    assert size(windows, counted) == 1000


def test_restart_and_broken_file(manifest: Manifest, tmp_path: Path) -> None:
    """Counters that have fallen, and a file that is not what was written, begin the window anew."""
    windows = DriftWindows(tmp_path, lambda: [manifest])
    assert look(windows, Counted().add(0, 0, 5000, 0)) > 1
    assert size(windows, Counted().add(0, 10, 10, 0)) == 0
    (tmp_path / FILE).write_bytes(b"{")
    assert size(windows, Counted().add(0, 10, 10, 0)) == 20


def test_models_without_a_profile(manifest: Manifest) -> None:
    """Nothing is added for them, and a scrape of theirs stays as it is, byte for byte."""
    counted = Counted().add(0, 0, 5000, 0)
    assert DriftWindows(None, lambda: [replace(manifest, profile=None)]).add_to(counted.text) == counted.text


def test_bounds_of_bins(manifest: Manifest) -> None:
    """What a bin ends at, and what was expected in it."""
    windows, counted = DriftWindows(None, lambda: [manifest]), Counted().add(0, 1, 1, 0)
    bounds = [look(windows, counted, "lectern_feature_bin_upper_bound", bin=position) for position in LEVEL.bins]
    assert bounds == [0.0, 1.0, 2.0, math.inf]
    shares = [look(windows, counted, "lectern_feature_expected_ratio", bin=position) for position in LEVEL.bins]
    assert shares == LEVEL.expected
    assert look(windows, counted, "lectern_feature_expected_ratio", feature="tag", bin=TAG.kinds[0]) == 0.5
