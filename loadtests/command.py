"""Load a running service: ``python -m loadtests run``, ``capacity``, ``compare``, ``limit``, ``mlperf``.

Exit codes: 0 passed, 1 the service failed, 2 wrong command line, 3 it could not be measured, 4 the load generator (or
what else ran on its machine) was what limited, 130 interrupted: what was measured until then is reported.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import msgspec

from loadtests import profiles, result, verdict
from loadtests.keys import read_key
from loadtests.limit import own_limit
from loadtests.mlperf.command import mlperf
from loadtests.objectives import read_objectives
from loadtests.options import ABOVE_0, AT_LEAST_0, FILE, Finite, OneLineGroup, read_data, read_weights, readable, shared
from loadtests.plan import Arrivals, LoadPhase
from loadtests.result import LoadResult
from loadtests.start import Workers, locust
from loadtests.targets import Ask
from loadtests.task import CapacitySearch, LoadTask, Objective
from loadtests.words import plan_capacity, summary

OUT = Path("runs/load")


@click.group(cls=OneLineGroup, help=__doc__)
def main() -> None:
    """The command line."""


main.add_command(mlperf)


@main.command()
@click.option("--profile", type=click.Choice(profiles.NAMES), default="smoke", show_default=True)
@click.option(
    "--rate", type=ABOVE_0, default=20.0, show_default=True, help="Requests per second the profile is built around."
)
@click.option("--seconds", type=ABOVE_0, help="Instead of the profile's own.")
@click.option(
    "--warm", type=AT_LEAST_0, default=profiles.WARM_SECONDS, show_default=True, help="Seconds that do not count."
)
@click.option("--users", type=click.IntRange(min=1), default=16, show_default=True, help="Of the closed loop.")
@click.option("--log", type=FILE, help="Of a replay: a timestamp in seconds a line.")
@click.option("--speed", type=ABOVE_0, default=1.0, show_default=True, help="Of a replay.")
@shared
def run(
    profile: str,
    rate: float,
    seconds: float | None,
    warm: float,
    users: int,
    log: Path | None,
    speed: float,
    **options: Any,
) -> None:
    """Offer one profile, and say whether the service kept its objective."""
    times = None
    phases: list[LoadPhase]
    if profile == profiles.REPLAY:
        if log is None:
            raise click.UsageError("a replay needs --log")
        phases, times = readable(profiles.replay, log, speed, warm)
    elif profile == profiles.CLOSED:
        phases = profiles.closed(seconds, warm)
    else:
        phases = profiles.phases(profile, rate, seconds, warm)
    _carry_out(profile, phases, options, times=times, users=users if profile == profiles.CLOSED else 0)


@main.command()
@click.option("--model", required=True, help="Whose capacity; several with weights: viewcount=8,image=2.")
@click.option(
    "--start",
    type=ABOVE_0,
    default=CapacitySearch().start,
    show_default=True,
    help="Requests per second of the first window.",
)
@click.option(
    "--most", type=ABOVE_0, default=CapacitySearch().most, show_default=True, help="Above this nothing is tried."
)
@click.option(
    "--window", type=ABOVE_0, default=5.0, show_default=True, help="Seconds of a try; shorter is quicker and less sure."
)
@click.option(
    "--closeness",
    type=Finite(1, min_open=True),
    default=CapacitySearch().closeness,
    show_default=True,
    help="Ratio of what held and what did not.",
)
@click.option("--target-rate", type=ABOVE_0, help="Requests per second to be carried: how many replicas that takes.")
@shared
def capacity(
    model: str,
    start: float,
    most: float,
    window: float,
    closeness: float,
    target_rate: float | None,
    **options: Any,
) -> None:
    """Find the highest arrival rate at which the objective holds."""
    hunt = CapacitySearch(
        start=start,
        most=most,
        warm_seconds=0.3 * window,
        climb_seconds=0.6 * window,
        seconds=window,
        confirm_seconds=1.6 * window,
        closeness=closeness,
    )
    options["models"] = model
    _carry_out("capacity", [], options, hunt=hunt, target_rate=target_rate)


@main.command()
@click.option("--seconds", type=ABOVE_0, default=3.0, show_default=True, help="At each rate.")
@click.option("--most", type=ABOVE_0, default=6000.0, show_default=True, help="Requests per second.")
def limit(seconds: float, most: float) -> None:
    """Find what the load generator itself can do, against a stub that answers at once."""
    try:
        found = own_limit(seconds, most)
    except OSError as error:
        click.echo(f"lectern: {error}", err=True)
        sys.exit(verdict.Exit.UNUSABLE)
    click.echo(found.sentence)
    sys.exit(verdict.Exit.PASSED if found.on_time_rate else verdict.Exit.CLIENT_LIMITED)


@main.command()
@click.argument("now", type=FILE)
@click.argument("earlier", type=FILE)
@click.option("--thresholds", type=FILE, default=verdict.THRESHOLDS)
def compare(now: Path, earlier: Path, thresholds: Path) -> None:
    """Compare two reports, and write the page of the first again."""
    _conclude(readable(result.read, now), now, earlier, thresholds, is_short=False)


def _carry_out(
    profile: str, phases: list[LoadPhase], options: dict[str, Any], *, target_rate: float | None = None, **more: Any
) -> None:
    """Let Locust measure, and report."""
    weights, bounds = read_weights(options["models"]), readable(verdict.read_thresholds, options["thresholds"])
    promised = readable(read_objectives, options["objectives"]).of(weights)
    objective = Objective(
        p99_ms=options["p99_ms"] or promised.p99_ms,
        error_share=promised.error_share if options["error_share"] is None else options["error_share"],
    )
    if options["against"]:
        readable(result.read, options["against"])
    out = (options["out"] or OUT / f"{profile}.json").resolve()
    readable(out.parent.mkdir, 0o777, True, True)
    with TemporaryDirectory(prefix="lectern-") as folder:
        task = LoadTask(
            profile=profile,
            ask=Ask(
                host=options["host"],
                weights=weights,
                data=read_data(options["data"]),
                seed=options["seed"],
                key=readable(read_key, options["key_file"]),
                timeout=options["timeout"],
            ),
            objective=objective,
            phases=phases,
            out=str(out),
            patience=bounds.client,
            arrivals=Arrivals(options["arrivals"]),
            seed=options["seed"],
            command=["python", "-m", "loadtests", *sys.argv[1:]],
            **more,
        )
        path = Path(folder) / "task.json"
        path.write_bytes(msgspec.json.encode(task))
        path.chmod(0o600)
        measured = locust(
            path,
            options["host"],
            processes=options["processes"],
            workers=Workers(options["expect_workers"], options["bind_port"]) if options["expect_workers"] else None,
            is_quiet=options["short"],
        )
    if measured != 0:
        sys.exit(measured if measured == verdict.Exit.INTERRUPTED else verdict.Exit.UNUSABLE)
    is_short = options["short"]
    _conclude(result.read(out), out, options["against"], options["thresholds"], is_short=is_short, rate=target_rate)


def _conclude(
    found: LoadResult, out: Path, against: Path | None, thresholds: Path, *, is_short: bool, rate: float | None = None
) -> None:
    """Write verdict and page, say both, and end with the code; ``rate`` is to be planned for."""
    bounds = readable(verdict.read_thresholds, thresholds)
    found.verdict = verdict.judge(found, bounds)
    earlier = readable(result.read, against) if against else None
    comparisons, unlike = [], []
    if earlier is not None:
        unlike = verdict.incomparable(found, earlier)
        comparisons = verdict.compare(found, earlier, bounds.against)
        if not unlike:
            found.verdict += [
                f"{one.name}: {one.now:,.1f}, was {one.earlier:,.1f}, and {one.bound:,.1f} is the bound"
                for one in comparisons
                if one.is_worse
            ]
    result.write(found, out)
    code = verdict.exit_code(found)
    click.echo("\n".join([summary(found, code), *plan_capacity(found, rate)]))
    for line in unlike:
        click.echo(f"not comparable with the earlier report: {line}")
    if not is_short:
        from loadtests.page import render  # the short form draws nothing

        where = out.with_suffix(".html")
        where.write_text(render(found, code, earlier, comparisons, unlike))
        click.echo(f"{where}")
    sys.exit(code)
