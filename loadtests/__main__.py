"""Load a running service: ``python -m loadtests run``, ``capacity``, ``compare``, ``limit``.

Exit codes: 0 passed, 1 the service failed, 3 it could not be measured, 4 the load generator was what limited.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import msgspec

from loadtests import profiles, result, verdict
from loadtests.limit import own_limit
from loadtests.mlperf.command import mlperf
from loadtests.plan import Arrivals, Phase
from loadtests.result import Result
from loadtests.start import Workers, locust
from loadtests.targets import Ask
from loadtests.task import Hunt, Objective, Task
from loadtests.words import summary

OUT = Path("runs/load")


def shared(command: Any) -> Any:
    """The options of everything that asks a service."""
    for option in reversed(
        [
            click.option("--host", default="http://127.0.0.1:3000", show_default=True, help="Of the service."),
            click.option("--models", default="", help="Names, with weights if they differ: viewcount=8,image=2. All."),
            click.option("--data", multiple=True, help="Real instances: tagging=corpus.jsonl. Else random ones."),
            click.option("--key-file", type=click.Path(exists=True, path_type=Path), help="With the caller's key."),
            click.option("--p99-ms", type=float, help="The objective, instead of the thresholds'."),
            click.option("--error-share", type=float, help="The objective, instead of the thresholds'."),
            click.option("--arrivals", type=click.Choice([kind.value for kind in Arrivals]), default="poisson"),
            click.option("--seed", default=7, show_default=True),
            click.option("--timeout", default=30.0, show_default=True, help="Seconds an answer is waited for."),
            click.option("--processes", default=1, show_default=True, help="That make the load, on this machine."),
            click.option("--expect-workers", default=0, help="Instead: workers on other machines to wait for."),
            click.option("--bind-port", default=5557, show_default=True, help="Where those workers find this process."),
            click.option("--out", type=click.Path(path_type=Path), help="Of the JSON; the page goes beside it."),
            click.option("--against", type=click.Path(exists=True, path_type=Path), help="An earlier JSON."),
            click.option("--thresholds", type=click.Path(exists=True, path_type=Path), default=verdict.THRESHOLDS),
            click.option("--short", is_flag=True, help="No page, one line."),
        ]
    ):
        command = option(command)
    return command


@click.group(help=__doc__)
def main() -> None:
    """The command line."""


main.add_command(mlperf)


@main.command()
@click.option("--profile", type=click.Choice(profiles.NAMES), default="smoke", show_default=True)
@click.option("--rate", default=20.0, show_default=True, help="Requests per second the profile is built around.")
@click.option("--seconds", type=float, help="Instead of the profile's own.")
@click.option("--warm", default=profiles.WARM_SECONDS, show_default=True, help="Seconds that do not count.")
@click.option("--users", default=16, show_default=True, help="Of the closed loop.")
@click.option("--log", type=click.Path(exists=True, path_type=Path), help="Of a replay: a timestamp in seconds a line.")
@click.option("--speed", default=1.0, show_default=True, help="Of a replay.")
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
    phases: list[Phase]
    if profile == profiles.REPLAY:
        if log is None:
            raise click.UsageError("a replay needs --log")
        phases, times = profiles.replay(log, speed, warm)
    elif profile == profiles.CLOSED:
        phases = profiles.closed(seconds, warm)
    else:
        phases = profiles.phases(profile, rate, seconds, warm)
    _carry_out(profile, phases, options, times=times, users=users if profile == profiles.CLOSED else 0)


@main.command()
@click.option("--model", required=True, help="Whose capacity; several with weights: viewcount=8,image=2.")
@click.option("--start", default=Hunt().start, show_default=True, help="Requests per second of the first window.")
@click.option("--most", default=Hunt().most, show_default=True, help="Above this nothing is tried.")
@click.option("--window", default=5.0, show_default=True, help="Seconds of a try; shorter is quicker and less sure.")
@click.option("--closeness", default=Hunt().closeness, show_default=True, help="Ratio of what held and what did not.")
@shared
def capacity(model: str, start: float, most: float, window: float, closeness: float, **options: Any) -> None:
    """Find the highest arrival rate at which the objective holds."""
    hunt = Hunt(
        start=start,
        most=most,
        warm_seconds=0.3 * window,
        climb_seconds=0.6 * window,
        seconds=window,
        confirm_seconds=1.6 * window,
        closeness=closeness,
    )
    options["models"] = model
    _carry_out("capacity", [], options, hunt=hunt)


@main.command()
@click.option("--seconds", default=3.0, show_default=True, help="At each rate.")
@click.option("--most", default=6000.0, show_default=True, help="Requests per second.")
def limit(seconds: float, most: float) -> None:
    """Find what the load generator itself can do, against a stub that answers at once."""
    found = own_limit(seconds, most)
    click.echo(found.sentence)
    sys.exit(verdict.Exit.PASSED if found.on_time_rate else verdict.Exit.CLIENT_LIMITED)


@main.command()
@click.argument("now", type=click.Path(exists=True, path_type=Path))
@click.argument("earlier", type=click.Path(exists=True, path_type=Path))
@click.option("--thresholds", type=click.Path(exists=True, path_type=Path), default=verdict.THRESHOLDS)
def compare(now: Path, earlier: Path, thresholds: Path) -> None:
    """Compare two reports, and write the page of the first again."""
    _conclude(result.read(now), now, earlier, thresholds, is_short=False)


def _carry_out(profile: str, phases: list[Phase], options: dict[str, Any], **more: Any) -> None:
    """Let Locust measure, and report."""
    weights = _pairs(options["models"].split(","))
    bounds = verdict.read_thresholds(options["thresholds"])
    promised = bounds.of(weights or ["any"])
    objective = Objective(
        p99_ms=options["p99_ms"] or promised.p99_ms,
        error_share=promised.error_share if options["error_share"] is None else options["error_share"],
    )
    key = options["key_file"].read_text().strip() if options["key_file"] else ""
    out = (options["out"] or OUT / f"{profile}.json").resolve()
    with TemporaryDirectory(prefix="lectern-") as folder:
        task = Task(
            profile=profile,
            ask=Ask(
                host=options["host"],
                weights={name: float(weight or 1) for name, weight in weights.items()},
                data={name: str(Path(file).resolve()) for name, file in _pairs(options["data"]).items()},
                seed=options["seed"],
                key=key,
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
        sys.exit(verdict.Exit.UNUSABLE)
    _conclude(result.read(out), out, options["against"], options["thresholds"], is_short=options["short"])


def _pairs(words: Sequence[str]) -> dict[str, str]:
    """``name=value`` or bare names."""
    found = (word.strip().partition("=") for word in words if word.strip())
    return {name: value for name, _, value in found}


def _conclude(found: Result, out: Path, against: Path | None, thresholds: Path, *, is_short: bool) -> None:
    """Write verdict and page, say both, and end with the code."""
    bounds = verdict.read_thresholds(thresholds)
    found.verdict = verdict.judge(found, bounds)
    earlier = result.read(against) if against else None
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
    click.echo(summary(found, code))
    for line in unlike:
        click.echo(f"not comparable with the earlier report: {line}")
    if not is_short:
        from loadtests.page import render  # the short form draws nothing

        where = out.with_suffix(".html")
        where.write_text(render(found, code, earlier, comparisons, unlike))
        click.echo(f"{where}")
    sys.exit(code)


if __name__ == "__main__":
    main()
