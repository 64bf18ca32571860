"""Compute how far recent requests and answers are from the training data, when Prometheus asks.

The window is that of all workers together. It is the difference between their counters now and those of an earlier
scrape, at least ``Profile.window`` instances ago; the earlier ones are kept in a file beside the counters, which every
worker that is asked reads. So it makes no difference which worker counted what, or which is asked.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile

import msgspec
import numpy as np

from models.artifact.drift_profile import Feature, Floats, Profile, stability_index
from models.artifact.manifest import Manifest

logger = logging.getLogger("lectern.drift")
FILE = "lectern-drift.json"
# Marks in a window; it is longer by one of these parts at most, and by what came since the last scrape.
PARTS = 10
COUNTS, STRAYS = "lectern_feature_instances_total", "lectern_feature_out_of_range_total"
GAUGES = {
    "lectern_feature_stability_index": "Population stability index of the latest instances; 0 until there are enough.",
    "lectern_feature_stability_limit": "The stability index above which the model's profile calls it an alarm.",
    "lectern_feature_expected_ratio": "Share of the training or validation data in each bin of a feature.",
    "lectern_feature_bin_upper_bound": "Upper edge of each bin of a feature that is a number.",
    "lectern_feature_out_of_range_ratio": "Share of the latest instances outside the range of the training data.",
    "lectern_feature_window_instances": "The latest instances that the index is of.",
}


class WindowMarks(msgspec.Struct, kw_only=True):
    """Earlier counts of one model, the oldest first: instances, and counts by feature with the strays last."""

    digest: str
    counts: list[list[list[float]]]


class DriftWindows:
    """The latest instances of every model.

    Attributes:
        file: Where the marks are kept; without one, here.
        served: The manifests of what serves now.
    """

    def __init__(self, folder: Path | None, served: Callable[[], Iterable[Manifest]]) -> None:
        self.file, self.served = None if folder is None else folder / FILE, served
        self._marks: dict[str, WindowMarks] = {}

    def add_to(self, text: str) -> str:
        """Return a scrape's text with the gauges of the served models behind it."""
        profiles = {manifest.model: manifest for manifest in self.served() if manifest.profile is not None}
        found = read_counts(text)
        marks = self._read()
        lines: dict[str, list[str]] = {name: [] for name in GAUGES}
        for model, manifest in profiles.items():
            assert manifest.profile is not None  # chosen above
            counts = [_counts_of(found, model, feature) for feature in manifest.profile.features]
            marks[model] = _move(marks.get(model), manifest.digest, counts, manifest.profile.window)
            window = [now - then for now, then in zip(counts, map(np.array, marks[model].counts[0]), strict=True)]
            for name, labels, value in gauges(model, manifest.profile, window):
                lines[name].append(f"{name}{{{labels}}} {_number(value)}\n")
        self._write(marks)
        return text + "".join(
            f"# HELP {name} {GAUGES[name]}\n# TYPE {name} gauge\n{''.join(part)}"
            for name, part in lines.items()
            if part
        )

    def _read(self) -> dict[str, WindowMarks]:
        if self.file is None:
            return self._marks
        try:
            return msgspec.json.decode(self.file.read_bytes(), type=dict[str, WindowMarks])
        except FileNotFoundError:
            return {}
        except msgspec.MsgspecError:
            logger.warning("%s is not what was written there; windows begin anew", self.file)
            return {}

    def _write(self, marks: dict[str, WindowMarks]) -> None:
        """Whole or not at all; of two scrapes at once the later one counts."""
        self._marks = marks
        if self.file is None:
            return
        try:
            with NamedTemporaryFile(dir=self.file.parent, delete=False) as aside:
                aside.write(msgspec.json.encode(marks))
            Path(aside.name).replace(self.file)
        except OSError as error:
            logger.warning("%s cannot be written: %s", self.file, error.strerror)


def _move(old: WindowMarks | None, digest: str, counts: list[Floats], window: int) -> WindowMarks:
    """Return the marks for a window that ends now; of another version's counts, and of those before a restart, none."""
    now = [part.tolist() for part in counts]
    total = _total(counts)
    if old is None:
        old = WindowMarks(digest=digest, counts=[[[0.0] * len(part) for part in now]])
    if old.digest != digest or _total(old.counts[-1]) > total:
        return WindowMarks(digest=digest, counts=[now])
    kept = old.counts if total - _total(old.counts[-1]) < window / PARTS else [*old.counts, now]
    start = max((bin_name for bin_name, mark in enumerate(kept) if _total(mark) <= total - window), default=0)
    return WindowMarks(digest=digest, counts=kept[start:])


def _total(counts: Iterable[Iterable[float]]) -> float:
    """Instances, of counts by feature with the strays last; a feature may have none of some."""
    return max((sum([*part][:-1]) for part in counts), default=0.0)


def gauges(model: str, profile: Profile, window: list[Floats]) -> Iterator[tuple[str, str, float]]:
    """Names, labels and values of a model's gauges, of the window's counts by feature with the strays last."""
    total = _total(window)
    for feature, part in zip(profile.features, window, strict=True):
        counts, strays = part[:-1], part[-1]
        is_enough, labels = counts.sum() >= profile.window / 2 and total >= profile.window, _labels(model, feature)
        index = float(stability_index(feature.shares, counts)) if is_enough else 0.0
        yield "lectern_feature_stability_index", labels, index
        yield "lectern_feature_stability_limit", labels, feature.limit
        for bin_name, share in zip(feature.bins, feature.expected, strict=True):
            yield "lectern_feature_expected_ratio", _labels(model, feature, bin_name), share
        if not feature.kinds:
            for bin_name, edge in zip(feature.bins, [*feature.edges, math.inf], strict=True):
                yield "lectern_feature_bin_upper_bound", _labels(model, feature, bin_name), edge
            yield "lectern_feature_out_of_range_ratio", labels, strays / counts.sum() if is_enough else 0.0
    yield "lectern_feature_window_instances", f'model="{_escape(model)}"', total


def read_counts(text: str) -> dict[str, float]:
    """Return the counters of a scrape's text that the windows are made of, by name and labels as they stand there."""
    found = {}
    for line in text.splitlines():
        if line.startswith((COUNTS, STRAYS)):
            series, _, value = line.rpartition(" ")
            found[series] = float(value)
    return found


def _counts_of(found: dict[str, float], model: str, feature: Feature) -> Floats:
    """Counts of a feature's bins, and its strays last."""
    series = [f"{COUNTS}{{{_labels(model, feature, bin_name)}}}" for bin_name in feature.bins]
    series.append(f"{STRAYS}{{{_labels(model, feature)}}}")
    return np.array([found.get(name, 0.0) for name in series])


def _labels(model: str, feature: Feature, bin_name: str | None = None) -> str:
    """In the order of their names, as the client writes them."""
    first = "" if bin_name is None else f'bin="{_escape(bin_name)}",'
    return f'{first}feature="{_escape(feature.name)}",model="{_escape(model)}"'


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    return "+Inf" if math.isinf(value) else repr(float(value))
