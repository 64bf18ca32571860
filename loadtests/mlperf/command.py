"""The command line."""

import shlex
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from loadtests import watch
from loadtests.hosts import DEFAULT_HOST, Host
from loadtests.keys import read_key
from loadtests.mlperf import page
from loadtests.mlperf.compliance import check_answers, check_caching
from loadtests.mlperf.exam import LoggedAnswers, loadgen, run
from loadtests.mlperf.library import SampleLibrary, test_library
from loadtests.mlperf.page import Accuracy, MlperfReport, ReportRow
from loadtests.mlperf.scenario import RULES_SECONDS, Purpose, Scenario, ScenarioSettings
from loadtests.mlperf.served import Address, ModelUnderTest, find_served
from loadtests.mlperf.trial import MlperfRun
from loadtests.objectives import OBJECTIVES, read_objectives
from loadtests.options import ABOVE_0, FILE, readable
from models.paths import REPOSITORY

RESULTS = REPOSITORY / "benchmarks" / "results"
SCENARIOS = [str(scenario) for scenario in Scenario]


@click.command()
@click.option("--host", type=Host(), default=DEFAULT_HOST, show_default=True, help="Where the service runs.")
@click.option("--key-file", type=FILE, help="With the caller's key.")
@click.option("--model", "models", multiple=True, help="A served model; may be repeated. All by default.")
@click.option("--scenario", "scenarios", multiple=True, type=click.Choice(SCENARIOS), help="All four by default.")
@click.option(
    "--seconds",
    type=ABOVE_0,
    default=10.0,
    show_default=True,
    help=f"Least duration of a run; the rules: {RULES_SECONDS}.",
)
@click.option("--bound-ms", type=ABOVE_0, help="Server's p99 bound, instead of the model's objective.")
@click.option("--objectives", type=FILE, default=OBJECTIVES, help="The file with the models' objectives.")
@click.option("--qps", type=ABOVE_0, help="Server's rate; searched for by default.")
@click.option("--compliance/--no-compliance", default=True, show_default=True, help="TEST01 and TEST04 too.")
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, help="Folder of mlperf.json and mlperf.md.")
@click.option("--logs", type=click.Path(path_type=Path), help="Keep LoadGen's logs there.")
def mlperf(
    host: str,
    key_file: Path | None,
    models: Sequence[str],
    scenarios: Sequence[str],
    seconds: float,
    bound_ms: float | None,
    objectives: Path,
    qps: float | None,
    compliance: bool,
    out: Path,
    logs: Path | None,
) -> None:
    """The MLPerf Inference scenarios through LoadGen; status 1 when a result is INVALID, wrong or not compliant.

    The service must run, and nothing else should.
    """
    loadgen()
    address, promise = Address.of(host, readable(read_key, key_file)), readable(read_objectives, objectives)
    chosen = [Scenario(name) for name in scenarios or SCENARIOS]
    reports = []
    with TemporaryDirectory(prefix="lectern-") as temporary:
        for served in find_served(address, models):
            bound = bound_ms or promise.of([served.entry.name]).p99_ms
            folder = (logs or Path(temporary)) / served.entry.name
            reports.append(examine(served, chosen, seconds, bound, folder, rate=qps, compliance=compliance))
            written = page.write(reports, out)
    click.echo(written.read_text())
    if not all(report.passed for report in reports):
        sys.exit("\n".join(sentence for report in reports for sentence in page.reasons(report)))


def examine(
    served: ModelUnderTest,
    scenarios: Sequence[Scenario],
    seconds: float,
    bound_ms: float,
    logs: Path,
    *,
    rate: float | None = None,
    compliance: bool = True,
    library: SampleLibrary | None = None,
) -> MlperfReport:
    """Accuracy first, then every scenario with its compliance tests."""
    described = watch.machine()
    library = library or test_library(served)
    marked = _ask_once(served, library, logs / "accuracy")
    rows = []
    for scenario in scenarios:
        log_folder = logs / scenario
        click.echo(f"{served.entry.name} {scenario} …", err=True)
        trial = MlperfRun(served.address, library, seconds, bound_ms, log_folder)
        outcome, settings = trial.perform(scenario, rate if scenario is Scenario.SERVER else None)
        verdicts = []
        if compliance and outcome.is_valid:
            verdicts = [
                check_answers(served, library, settings, dict(marked.answers), log_folder / "TEST01"),
                check_caching(served, settings, log_folder / "TEST04"),
            ]
        rows.append(ReportRow(outcome=outcome, expected=settings.expected, bound_ms=bound_ms, verdicts=verdicts))
    return MlperfReport(
        model=served.entry.name,
        version=served.entry.version,
        family=served.entry.family,
        digest=served.entry.digest,
        provider=served.entry.provider,
        library=library.source,
        samples=len(library.samples),
        is_uneven=library.is_uneven,
        seconds=seconds,
        command=_command(),
        commit=watch.commit(),
        date=date.today().isoformat(),
        machine=described,
        accuracy=_judge(served, library, marked),
        rows=rows,
    )


def _ask_once(served: ModelUnderTest, library: SampleLibrary, logs: Path) -> LoggedAnswers:
    """Return the whole library in accuracy mode, all at once."""
    settings = ScenarioSettings(
        scenario=Scenario.OFFLINE,
        purpose=Purpose.ACCURACY,
        seconds=0,
        expected=1.0,
        bound_ms=0.0,
        queries=len(library.samples),
    )
    return run(served.address, library, settings, logs)


def _judge(served: ModelUnderTest, library: SampleLibrary, marked: LoggedAnswers) -> Accuracy:
    answers, score, failures = dict(marked.answers), served.entry.score, dict(marked.outcome.failures)
    count = len(library.samples)
    is_whole = not failures and len(answers) == count
    found = library.score([answers[number] for number in range(count)]) if is_whole else None
    return Accuracy(
        metric=score.metric,
        unit=score.unit,
        certified=score.test,
        found=found,
        is_better_high=library.data is None or library.data.metric.is_better_high,
        answers=len(answers),
        samples=count,
        failures=failures,
    )


def _command() -> str:
    """Return how this run was asked for, without where its results and logs go."""
    words = iter(word for word in sys.argv[1:] if word != "mlperf")
    kept = []
    for word in words:
        if word in ("--out", "--logs"):
            next(words, "")
        elif not word.startswith(("--out=", "--logs=")):
            kept.append(shlex.quote(word))
    return " ".join(["python -m loadtests mlperf", *kept])
