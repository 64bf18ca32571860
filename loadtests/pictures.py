"""The pictures of a report, as SVG text to be put into its page."""

import re
from collections.abc import Sequence
from io import StringIO

import matplotlib

from loadtests.result import LoadResult, MeasuredValue, Moment, TimeWindow

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

OURS, THEIRS, GOOD, BAD, INK = "#b5482a", "#8a94a3", "#3f7d58", "#c0392b", "#222222"
pyplot.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none"})


def over_time(found: LoadResult) -> str:
    """Offered and answered rates above, latency below, phases marked."""
    figure, (rates, latency) = pyplot.subplots(2, 1, figsize=(10, 5), sharex=True, height_ratios=(1, 1.4))
    moments = found.moments
    at = [moment.at for moment in moments]
    if found.arrivals != "closed":
        rates.plot(at, [moment.offered_rate for moment in moments], color=THEIRS, lw=1, label="were due")
    rates.plot(at, [moment.good_rate for moment in moments], color=GOOD, lw=1.4, label="answered rightly")
    if any(moment.failed_rate for moment in moments):
        rates.plot(at, [moment.failed_rate for moment in moments], color=BAD, lw=1.4, label="failed")
    rates.set_ylabel("requests per second")
    rates.set_ylim(bottom=0)
    _line(latency, moments, "p99_ms", OURS, "p99")
    _line(latency, moments, "p50_ms", INK, "p50")
    latency.axhline(found.objective.p99_ms, color=BAD, lw=0.8, ls="--", label="objective of p99")
    latency.set_yscale("log")
    latency.set_ylabel("latency, ms")
    latency.set_xlabel("seconds; a request belongs to the moment it was due")
    latency.yaxis.set_major_formatter("{x:g}")
    for panel in (rates, latency):
        panel.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)
        _mark_phases(panel, found)
    return _svg(figure, "Rates and latency over time")


def _line(panel: Axes, moments: Sequence[Moment], name: str, colour: str, label: str) -> None:
    points = [(moment.at, getattr(moment, name)) for moment in moments if getattr(moment, name) is not None]
    panel.plot([at for at, _ in points], [value for _, value in points], color=colour, lw=1.2, label=label)


def _mark_phases(panel: Axes, found: LoadResult) -> None:
    begin = 0.0
    for number, part in enumerate(found.parts):
        if part.name == "warm-up":
            panel.axvspan(begin, begin + part.seconds, color="#eeeeee", lw=0)
        elif number:
            panel.axvline(begin, color=THEIRS, lw=0.6, ls=":")
        begin += part.seconds
    panel.set_xlim(0, begin)


def percentiles(found: LoadResult, earlier: LoadResult | None) -> str:
    """Return the latency that a share of the answers stays below, by nines."""
    figure, panel = pyplot.subplots(figsize=(5, 3.4))
    for report, colour, label in ((earlier, THEIRS, "earlier"), (found, OURS, "now")):
        if report is not None and report.percentiles:
            shares = [1 / max(1 - share / 100, 1e-4) for share, _ in report.percentiles]
            panel.plot(shares, [value for _, value in report.percentiles], color=colour, lw=1.4, label=label)
    panel.axhline(found.objective.p99_ms, color=BAD, lw=0.8, ls="--", label="objective of p99")
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.yaxis.set_major_formatter("{x:g}")
    panel.set_xticks([1, 2, 10, 100, 1000, 10_000], ["0", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"])
    panel.set_xlabel("share of the right answers")
    panel.set_ylabel("latency up to, ms")
    panel.legend(fontsize=8, frameon=False)
    return _svg(figure, "Percentiles of the latency")


def errors(found: LoadResult) -> str:
    """Failures by reason; empty when there are none."""
    reasons = {reason: count for reason, count in found.whole.outcomes.items() if reason != "ok"}
    if not reasons:
        return ""
    figure, panel = pyplot.subplots(figsize=(5, 1 + 0.35 * len(reasons)))
    ranked = sorted(reasons.items(), key=lambda pair: pair[1])
    bars = panel.barh([reason for reason, _ in ranked], [count for _, count in ranked], color=BAD, height=0.6)
    panel.bar_label(bars, labels=[f"{count:,}" for _, count in ranked], padding=3, fontsize=8)
    panel.margins(x=0.15)
    panel.set_xlabel("requests that failed")
    return _svg(figure, "Failures by reason")


def throughput(windows: Sequence[TimeWindow], found: LoadResult) -> str:
    """Return every window of a capacity search: rate against latency, and against the share that was answered well."""
    tried = sorted((window for window in windows if not window.is_void), key=lambda window: window.rate)
    if not tried:
        return ""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.8))
    for name, marker in (("p50", "s"), ("p90", "^"), ("p99", "o")):
        with_figure = [window for window in tried if name in window.part.latency_ms]
        left.scatter(
            [window.rate for window in with_figure],
            [window.part.latency_ms[name] for window in with_figure],
            c=[GOOD if window.is_held else BAD for window in with_figure],
            marker=marker,
            s=18,
            label=name,
        )
    left.axhline(found.objective.p99_ms, color=BAD, lw=0.8, ls="--", label="objective of p99")
    left.set_yscale("log")
    left.yaxis.set_major_formatter("{x:g}")
    left.set_ylabel("latency, ms (green: held, red: missed)")
    right.plot(
        [window.rate for window in tried], [window.rate for window in tried], color=THEIRS, lw=0.8, label="were due"
    )
    right.scatter(
        [window.rate for window in tried],
        [window.part.good_rate for window in tried],
        c=[GOOD if window.is_held else BAD for window in tried],
        s=18,
        label="answered rightly",
    )
    right.set_ylabel("right answers per second")
    for panel in (left, right):
        panel.set_xlabel("requests per second that were due")
        if found.finding and found.finding.rate:
            panel.axvline(found.finding.rate, color=OURS, lw=1.2, label=f"capacity {found.finding.rate:,.0f}/s")
        panel.legend(fontsize=8, frameon=False)
    return _svg(figure, "Throughput and latency")


def stages(metrics: Sequence[MeasuredValue]) -> str:
    """Means of the service's own histograms of seconds; empty when it has none."""
    timed = [metric for metric in metrics if metric.mean is not None and metric.name.endswith("seconds")][:40]
    if not timed:
        return ""
    figure, panel = pyplot.subplots(figsize=(8, 0.9 + 0.34 * len(timed)))
    names = [f"{metric.name.removeprefix('lectern_')} {' '.join(metric.labels.values())}" for metric in timed]
    panel.barh(
        names, [1000 * (metric.p99 or 0) for metric in timed], color="#e3c4b8", height=0.7, label="p99, by buckets"
    )
    panel.barh(names, [1000 * (metric.mean or 0) for metric in timed], color=OURS, height=0.35, label="mean")
    panel.invert_yaxis()
    panel.set_xlabel("ms, as the service counted")
    panel.legend(fontsize=8, frameon=False)
    return _svg(figure, "The service's own times")


def _svg(figure: Figure, title: str) -> str:
    """Return the figure without what only a file of its own needs."""
    figure.tight_layout()
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    svg = text.getvalue()[text.getvalue().index("<svg") :]
    # Several pictures share a page, so the names inside them must differ.
    mark = re.sub(r"\W+", "", title)
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{mark}-", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
