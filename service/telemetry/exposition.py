"""The page of metrics: what all processes have written into their files, added up.

``prometheus_client`` reads each file's keys anew at every scrape, which takes 10 µs a series and process, and BentoML
does it twice, in a thread that gives the interpreter away at every file: 1.9 s behind an overloaded event loop. Keys
never change their place, so here they are read once; what is left is to add and to write numbers.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import psutil
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_open
from prometheus_client.registry import Collector

from service.settings.environment import metrics_location
from service.telemetry.dead_processes import DeadProcessMetrics, read_file
from service.telemetry.exemplars import Exemplar, find_exemplars

MEDIA_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
OPEN_MEDIA_TYPE = b"application/openmetrics-text; version=1.0.0; charset=utf-8"
_END = "# EOF\n"
_ADD: Callable[[float, float], float] = float.__add__
# How a gauge's values of several processes become one. BentoML's other gauges are times, of which the latest is meant.
_MODES: dict[str, Callable[[float, float], float]] = {"livesum": _ADD, "livemin": min}


class _ValuePosition(NamedTuple):
    """A number in a file: which series it is part of, and where it stands, in steps of eight bytes."""

    key: str
    position: int


class _MetricsFile:
    """One process's numbers of one kind."""

    def __init__(self, path: Path) -> None:
        kind, *middle, pid = path.stem.split("_")
        self.path, self.kind, self.pid = path, kind, int(pid)
        self.mode = "".join(middle)
        self.places: list[_ValuePosition] = []
        self._used = 0

    @property
    def is_alive(self) -> bool:
        """Whether its numbers count: what was counted does for ever, what was so does while its process lives."""
        return self.kind != "gauge" or psutil.pid_exists(self.pid)

    def read(self) -> Iterator[tuple[str, float]]:
        """Return every series' key and value."""
        data = self.path.read_bytes()
        used = int.from_bytes(data[:4], "little")
        if used != self._used:
            pairs = read_file(self.path)
            self.places = [_ValuePosition(key, position // 8) for key, _, _, position in pairs]
            self._used = used
        numbers = memoryview(data)[: len(data) // 8 * 8].cast("d")
        return ((key, numbers[position]) for key, position in self.places)


class _Metric:
    """One metric's lines, in order."""

    def __init__(self, name: str, kind: str, help_text: str) -> None:
        self.name, self.kind = name, kind
        suffix = "_total" if kind == "counter" else ""
        told = help_text.replace("\\", r"\\").replace("\n", r"\n")
        self.head = f"# HELP {name}{suffix} {told}\n# TYPE {name}{suffix} {kind}\n"
        self.open_head = f"# HELP {name} {_escaped(help_text)}\n# TYPE {name} {kind}\n"
        self.lines: list[tuple[str, str]] = []
        self.children: dict[str, _Child] = {}

    def add(self, key: str, sample: str, labels: Mapping[str, str]) -> None:
        """Take a series up."""
        rest = {name: value for name, value in labels.items() if name != "le"}
        text = _labels(rest)
        if self.kind != "histogram":
            self.lines.append((f"{sample}{text} ", key))
            return
        child = self.children.setdefault(text, _Child(self.name, rest))
        if "le" in labels:
            child.add(labels["le"], key)
        else:
            child.sum_key = key

    def write(self, values: Mapping[str, float], *, is_open: bool) -> Iterator[str]:
        """Yield its part of the page."""
        yield self.open_head if is_open else self.head
        for prefix, key in self.lines:
            yield f"{prefix}{_number(values[key])}\n"
        for child in self.children.values():
            yield from child.write(values, find_exemplars(self.name, child.labels) if is_open else {})


class _Child:
    """One histogram's lines: the buckets, each with all below it, their count and sum."""

    def __init__(self, name: str, labels: Mapping[str, str]) -> None:
        self._name, self.labels = name, labels
        self._buckets: list[tuple[float, str, str]] = []
        self._text = _labels(labels)
        self.sum_key = ""

    def add(self, bound: str, key: str) -> None:
        prefix = f"{self._name}_bucket{_labels({**self.labels, 'le': bound})} "
        self._buckets = sorted([*self._buckets, (float(bound), prefix, key)])

    def write(self, values: Mapping[str, float], exemplars: Mapping[int, Exemplar]) -> Iterator[str]:
        total = 0.0
        for number, (_, prefix, key) in enumerate(self._buckets):
            total += values.get(key, 0.0)
            yield f"{prefix}{total!r}{_exemplar(exemplars[number]) if number in exemplars else ''}\n"
        yield f"{self._name}_count{self._text} {total!r}\n"
        yield f"{self._name}_sum{self._text} {_number(values.get(self.sum_key, 0.0))}\n"


class MetricsPage:
    """The page of metrics of one service.

    Args:
        folder: With the files of all its processes.
        collectors: Of what is looked up at each scrape.
    """

    def __init__(self, folder: Path, collectors: Iterable[Collector] = ()) -> None:
        self._remains = DeadProcessMetrics(folder)
        self._files: dict[str, _MetricsFile] = {}
        self._metrics: dict[str, _Metric] = {}
        self._known: set[str] = set()
        self._registry = CollectorRegistry()
        for collector in collectors:
            self._registry.register(collector)

    def render(self, add: Callable[[str], str] | None = None, *, is_open: bool = False) -> bytes:
        """Return the page as it is now.

        Args:
            add: Puts more behind the text.
            is_open: Whether it is OpenMetrics, with exemplars, rather than Prometheus' text.
        """
        found = _Zeros(self._read())
        text = "".join(line for metric in self._metrics.values() for line in metric.write(found, is_open=is_open))
        write: Callable[[CollectorRegistry], bytes] = generate_open if is_open else generate_latest
        text += write(self._registry).decode().removesuffix(_END)
        if add is not None:
            text = add(text)
        return (text + _END if is_open else text).encode()

    def totals(self) -> dict[str, dict[tuple[str, str], float]]:
        """Return each model's numbers, by sample name and the other label's value; versions in one, and buckets."""
        found: dict[str, dict[tuple[str, str], float]] = {}
        for key, value in self._read().items():
            _, sample, labels, _ = json.loads(key)
            model = labels.pop("model", None)
            if model is not None:
                for label in ("le", "version"):
                    labels.pop(label, None)
                of_model, series_key = found.setdefault(model, {}), (sample, "".join(labels.values()))
                of_model[series_key] = of_model.get(series_key, 0.0) + value
        return found

    def _read(self) -> dict[str, float]:
        """Return every series' value, by key."""
        values: dict[str, float] = {}
        with self._remains.shared() as paths:
            files = {path.name: self._files.get(path.name) or _MetricsFile(path) for path in paths}
            for file in files.values():
                if file.is_alive:
                    self._add(file, values)
        self._files = files
        return values

    def _add(self, file: _MetricsFile, values: dict[str, float]) -> None:
        join = _MODES.get(file.mode, max) if file.kind == "gauge" else _ADD
        for key, value in file.read():
            if key in values:
                values[key] = join(values[key], value)
            else:
                values[key] = value
                if key not in self._known:
                    self._learn(key, file.kind)

    def _learn(self, key: str, kind: str) -> None:
        name, sample, labels, help_text = json.loads(key)
        self._metrics.setdefault(name, _Metric(name, kind, help_text)).add(key, sample, labels)
        self._known.add(key)


class _Zeros(dict[str, float]):
    """Values by key; a series whose process is gone stays, at 0."""

    def __missing__(self, key: str) -> float:
        return 0.0


def _number(value: float) -> str:
    return repr(value) if abs(value) != float("inf") else ("+Inf" if value > 0 else "-Inf")


def _exemplar(one: Exemplar) -> str:
    return f" # {_labels(one.labels) or '{}'} {one.seconds!r} {one.at:.3f}"


def _labels(labels: Mapping[str, str]) -> str:
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in sorted(labels.items()))
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def open_page(collectors: Iterable[Collector] = ()) -> MetricsPage | None:
    """Return the page of this process and its sisters; ``None`` where they share no files, as in a test."""
    folder = metrics_location()
    return None if folder is None else MetricsPage(folder, collectors)
