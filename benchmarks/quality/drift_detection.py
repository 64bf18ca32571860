"""Measure how soon a shift raises the alarm, and false alarms: ``python -m benchmarks.quality.drift_detection``.

Requests go through the shipped model and are counted into its profile's bins, as the service counts them; the window
is the latest 1,000. The limits in the profiles were chosen on validation data; the test data are looked at here.
``--split validation`` tries the same on the validation data and writes nothing.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.machine import commit, describe
from benchmarks.quality.shifts import SHIFTS, load
from models.artifact.drift_profile import Feature, Profile, find_outliers, measure, stability_index
from models.card import Array
from models.paths import REPOSITORY
from models.runtime.predictor import Predictor, open_predictor
from models.runtime.session import open_artifact

RESULTS = REPOSITORY / "benchmarks" / "results"
SCRAPE_SECONDS = 15
DAY_SECONDS = 86_400
STEP = 10
CHUNK = 512
Counts = dict[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Describe what a shifted set did.

    Attributes:
        title: Which.
        instances: Different ones.
        is_usual: Whether it should raise no alarm.
        alarmed: In how many of the trials.
        trials: Each a new order of requests, after a window of test requests.
        requests: Until the first alarm, the median of the trials.
        most_requests: Likewise, the most.
        feature: What alarmed first, most of the time.
        index: Of that feature when the window holds nothing else.
        limit: Of that feature.
        outliers: Shares of the instances with an outlier score of 2 or more, and of 3.
    """

    title: str
    instances: int
    is_usual: bool
    alarmed: int
    trials: int
    requests: float | None
    most_requests: float | None
    feature: str
    index: float
    limit: float
    outliers: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuietDays:
    """Describe what ordinary days did: test instances drawn with replacement, one a second, looked at every 15 s.

    Attributes:
        instances: Different ones.
        days: Tried.
        false_days: With any alarm of any feature.
        closest: The feature that came nearest to its limit, and how near, as a part of it.
        outliers: Shares of the test instances with an outlier score of 2 or more, and of 3.
        out_of_range: Largest share of out-of-range test instances of any feature.
    """

    instances: int
    days: int
    false_days: int
    closest: tuple[str, float]
    outliers: tuple[float, float]
    out_of_range: float


def bins_of(predictor: Predictor, profile: Profile, instances: list[Any]) -> tuple[Counts, tuple[float, float]]:
    """For each feature, each instance's part of each bin ``(B, bins)``; and the shares of outliers."""
    traits = predictor.card.traits
    assert traits is not None  # it has a profile
    parts: list[dict[str, Array]] = []
    scores: list[float] = []
    for start in range(0, len(instances), CHUNK):
        chunk = instances[start : start + CHUNK]
        found = measure(traits, predictor.encode(chunk), predictor.predict(chunk), predictor.assets)
        scores += [one.score for one in find_outliers(profile, found)]
        parts.append(found)
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    strange = [round(float(np.mean(np.array(scores) >= least)), 4) for least in (2, 3)]
    parts_of = {feature.name: _parts(feature, values[feature.name]) for feature in profile.features}
    return parts_of, (strange[0], strange[1])


def _parts(feature: Feature, values: Array) -> NDArray[np.float64]:
    if feature.kinds:
        return values.astype(np.float64)
    table: NDArray[np.float64] = np.eye(len(feature.expected))[feature.places(values)]
    return table


def first_alarm(profile: Profile, stream: Counts, start: int) -> tuple[int, str] | None:
    """After how many requests past ``start`` the window alarms, looked at every few; and by which feature."""
    ends = np.arange(start, len(next(iter(stream.values()))) + 1, STEP)
    first: tuple[int, str] | None = None
    for feature in profile.features:
        over = np.flatnonzero(_indices(feature, stream[feature.name], ends, profile.window) > feature.limit)
        if len(over) and (first is None or ends[over[0]] - start < first[0]):
            first = int(ends[over[0]] - start), feature.name
    return first


def _indices(feature: Feature, rows: NDArray[np.float64], ends: NDArray[np.intp], window: int) -> NDArray[np.float64]:
    totals = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0)])
    return stability_index(feature.shares, totals[ends] - totals[ends - window])


def try_shift(profile: Profile, usual: Counts, shifted: Counts, trials: int, seed: int) -> list[Any]:
    """Return the first alarm of each trial."""
    rng, found = np.random.default_rng(seed), []
    counts = [len(next(iter(counts.values()))) for counts in (usual, shifted)]
    for _ in range(trials):
        before = rng.integers(0, counts[0], profile.window)
        after = rng.integers(0, counts[1], 2 * profile.window)
        stream = {name: np.concatenate([usual[name][before], shifted[name][after]]) for name in usual}
        found.append(first_alarm(profile, stream, profile.window))
    return found


def quiet_days(profile: Profile, usual: Counts, days: int, seed: int) -> tuple[int, tuple[str, float]]:
    """Return how many days had an alarm, and which feature came nearest to one."""
    rng = np.random.default_rng(seed)
    count = len(next(iter(usual.values())))
    steps = math.ceil(profile.window / SCRAPE_SECONDS)
    false, nearest = 0, {feature.name: 0.0 for feature in profile.features}
    for _ in range(days):
        drawn, is_false = rng.integers(0, count, DAY_SECONDS), False
        for feature in profile.features:
            scraped = np.add.reduceat(usual[feature.name][drawn], np.arange(0, DAY_SECONDS, SCRAPE_SECONDS), axis=0)
            ends = np.arange(steps, len(scraped) + 1)
            worst = float(_indices(feature, scraped, ends, steps).max()) / feature.limit
            nearest[feature.name] = max(nearest[feature.name], worst)
            is_false = is_false or worst > 1
        false += is_false
    name = max(nearest, key=lambda one: nearest[one])
    return false, (name, round(nearest[name], 3))


def evaluate(model: str, split: str, days: int, trials: int) -> dict[str, Any]:
    """Return one model."""
    session = open_artifact(next((REPOSITORY / "models").glob(f"*/trained/{model}")))
    predictor, profile, data = open_predictor(session), session.manifest.profile, load(model)
    assert profile is not None  # every shipped model has one
    instances = [instance for instance, _ in data.examples(split)]
    usual, strange = bins_of(predictor, profile, instances)
    false, closest = quiet_days(profile, usual, days, seed=0)
    outside = max((usual[f.name][:, [0, -1]].sum(axis=1).mean() for f in profile.features if not f.kinds), default=0)
    quiet = QuietDays(
        instances=len(instances),
        days=days,
        false_days=false,
        closest=closest,
        outliers=strange,
        out_of_range=round(float(outside), 4),
    )
    shifts = []
    for shift in SHIFTS[model]:
        made = shift.make(instances, data, np.random.default_rng(0))
        shifted, far = bins_of(predictor, profile, made)
        alarms = try_shift(profile, usual, shifted, trials, seed=1)
        seen = [alarm for alarm in alarms if alarm is not None]
        indices = {f.name: float(stability_index(f.shares, shifted[f.name].sum(axis=0))) for f in profile.features}
        limits = {feature.name: feature.limit for feature in profile.features}
        names = [name for _, name in seen] or [max(indices, key=lambda one: indices[one] / limits[one])]
        name = max({*names}, key=names.count)
        shifts.append(
            Seen(
                title=shift.title,
                instances=len(made),
                is_usual=shift.is_usual,
                alarmed=len(seen),
                trials=trials,
                requests=float(np.median([count for count, _ in seen])) if seen else None,
                most_requests=float(max(count for count, _ in seen)) if seen else None,
                feature=name,
                index=round(indices[name], 3),
                limit=limits[name],
                outliers=far,
            )
        )
    return {"model": model, "digest": session.manifest.digest, "quiet": asdict(quiet), "shifts": [*map(asdict, shifts)]}


def table(found: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the figures as Markdown."""
    yield "## Shifted requests"
    yield ""
    yield "| model | requests | alarm | after requests (most) | first by | its index, limit | outlier score ≥ 2, ≥ 3 |"
    yield "| --- | --- | ---: | ---: | --- | ---: | ---: |"
    for one in found:
        for shift in one["shifts"]:
            after = "–" if shift["requests"] is None else f"{shift['requests']:,.0f} ({shift['most_requests']:,.0f})"
            yield (
                f"| {one['model']} | {shift['title']} | {shift['alarmed']} of {shift['trials']} | {after} | "
                f"{shift['feature']} | {shift['index']:.2f}, {shift['limit']:g} | {_percent(shift['outliers'])} |"
            )
    yield ""
    yield "## Test requests as they are"
    yield ""
    yield "| model | test instances | days with a false alarm | nearest to its limit | out of range | score ≥ 2, ≥ 3 |"
    yield "| --- | ---: | ---: | --- | ---: | ---: |"
    for one in found:
        quiet = one["quiet"]
        name, part = quiet["closest"]
        yield (
            f"| {one['model']} | {quiet['instances']:,} | {quiet['false_days']} of {quiet['days']:,} | "
            f"{name}, {100 * part:.0f} % | {100 * quiet['out_of_range']:.2f} % | {_percent(quiet['outliers'])} |"
        )


def _percent(shares: tuple[float, float]) -> str:
    return ", ".join(f"{100 * share:.1f} %" for share in shares)


def page(found: list[dict[str, Any]], command: str) -> str:
    """Return the whole page."""
    machine = describe()
    head = [
        "# Drift",
        "",
        f"`{command}`, {datetime.now(UTC):%Y-%m-%d}, commit {commit()}: {machine['cpu']}, Python {machine['python']}.",
        "",
        "A trial is a window of 1,000 test requests and then shifted ones, drawn with replacement; the index is looked",
        "at every 10 requests. A day is 86,400 test requests, drawn with replacement, one a second, looked at every",
        "15 s. Any feature above its limit is an alarm. Limits are the profile's, chosen on validation data.",
        "",
    ]
    return "\n".join([*head, *table(found), ""])


@click.command(help=__doc__)
@click.option("--split", default="test", type=click.Choice(["test", "validation"]))
@click.option("--days", default=300, show_default=True)
@click.option("--trials", default=200, show_default=True)
@click.option("--model", "models", multiple=True, type=click.Choice([*SHIFTS]), help="Default: all.")
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, help="Where drift.md and drift.json go.")
def main(split: str, days: int, trials: int, models: tuple[str, ...], out: Path) -> None:
    """The command line."""
    found = [evaluate(model, split, days, trials) for model in models or SHIFTS]
    text = page(found, f"python -m benchmarks.quality.drift_detection --days {days} --trials {trials}")
    click.echo(text)
    if split == "test" and not models:
        (out / "drift.md").write_text(text)
        (out / "drift.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
