"""Write the results of MLPerf's scenarios as JSON and as a page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from loadtests.mlperf.compliance import ComplianceVerdict
from loadtests.mlperf.exam import LoggedOutcome
from loadtests.mlperf.scenario import RULES_SECONDS, Scenario

# The rules' quality target, as a share of the certified score.
QUALITY = 0.99
# Python computes on one core.
CLIENT_CORES = 0.9
COLUMNS = (
    *("model", "scenario", "result", "figure", "p50 ms", "p99 ms", "queries", "seconds", "client cores"),
    *("TEST01", "TEST04"),
)


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """The library asked once, in accuracy mode, and what the answers are worth."""

    metric: str
    unit: str
    certified: float
    found: float | None
    is_better_high: bool
    answers: int
    samples: int
    failures: dict[str, int]

    @property
    def passed(self) -> bool:
        """Every answer is there, and where the truth is known they are worth 99 % of what the certificate says."""
        if self.failures or self.answers != self.samples:
            return False
        if self.found is None:
            return True
        return self.found >= QUALITY * self.certified if self.is_better_high else self.found <= self.certified / QUALITY


class ReportRow(msgspec.Struct, frozen=True, kw_only=True):
    """One model in one scenario."""

    outcome: LoggedOutcome
    expected: float
    bound_ms: float
    verdicts: list[ComplianceVerdict]

    @property
    def passed(self) -> bool:
        """Valid, and every compliance test that was made kept."""
        return self.outcome.is_valid and all(verdict.passed for verdict in self.verdicts)


class MlperfReport(msgspec.Struct, frozen=True, kw_only=True):
    """One model in the scenarios that were asked for."""

    model: str
    version: str
    family: str
    digest: str
    provider: str
    library: str
    samples: int
    is_uneven: bool
    seconds: float
    command: str
    commit: str
    date: str
    machine: dict[str, Any]
    accuracy: Accuracy
    rows: list[ReportRow]

    @property
    def passed(self) -> bool:
        """Return nothing failed."""
        return self.accuracy.passed and all(row.passed for row in self.rows)


def write(reports: Sequence[MlperfReport], folder: Path) -> Path:
    """Write ``mlperf.json`` and ``mlperf.md``; models that were not run now keep what they had."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mlperf.json"
    known = {report.model: report for report in read(path)}
    known |= {report.model: report for report in reports}
    ordered = [known[name] for name in sorted(known)]
    path.write_bytes(msgspec.json.format(msgspec.json.encode(ordered), indent=1) + b"\n")
    (folder / "mlperf.md").write_text(markdown(ordered))
    return folder / "mlperf.md"


def read(path: Path) -> list[MlperfReport]:
    """Return the reports of a ``mlperf.json``; none where there is no file."""
    return msgspec.json.decode(path.read_bytes(), type=list[MlperfReport]) if path.is_file() else []


def markdown(reports: Sequence[MlperfReport]) -> str:
    """Return the page."""
    first = reports[0]
    return "\n".join(
        [
            "# MLPerf Inference scenarios",
            "",
            f"LoadGen {first.rows[0].outcome.loadgen if first.rows else ''}, over HTTP, with the rules of its own "
            "`mlperf.conf` (seeds, percentiles, early stopping). No submission: the models are ours, and the rules' "
            f"{RULES_SECONDS} s are shortened to what the table says. Server's bound is a p99 from the scheduled time.",
            "",
            f"| {' | '.join(COLUMNS)} |",
            "|---" * len(COLUMNS) + "|",
            *(_line(report, row) for report in reports for row in report.rows),
            "",
            *_accuracies(reports),
            "",
            *(f"- {sentence}" for report in reports for sentence in [*reasons(report), *limits(report)]),
            "",
            *_origins(reports),
            "",
        ]
    )


def _line(report: MlperfReport, row: ReportRow) -> str:
    found, tests = row.outcome, {verdict.name: verdict for verdict in row.verdicts}
    cells = [
        report.model,
        str(found.scenario),
        "VALID" if found.is_valid else "INVALID",
        _figure(row),
        f"{found.p50_ms:.2f}",
        f"{found.p99_ms:.2f}",
        _queries(found),
        f"{report.seconds:g}",
        f"{found.client_cores:.2f}",
        *(_test(tests.get(name)) for name in ("TEST01", "TEST04")),
    ]
    return f"| {' | '.join(cells)} |"


def _queries(found: LoggedOutcome) -> str:
    """Offline is one query of very many samples."""
    return (
        f"1 of {found.settings['samples_per_query']:,}" if found.scenario is Scenario.OFFLINE else f"{found.queries:,}"
    )


def _figure(row: ReportRow) -> str:
    figure = row.outcome.figure
    return {
        Scenario.SINGLE_STREAM: f"p90 ≤ {figure:.2f} ms",
        Scenario.MULTI_STREAM: f"p99 of 8 ≤ {figure:.2f} ms",
        Scenario.SERVER: f"{figure:,.0f} samples/s, p99 ≤ {row.bound_ms:g} ms",
        Scenario.OFFLINE: f"{figure:,.0f} samples/s",
    }[row.outcome.scenario]


def _test(verdict: ComplianceVerdict | None) -> str:
    if verdict is None:
        return "not made"
    ratios = ", ".join(f"{purpose} {ratio:.2f}" for purpose, ratio in verdict.ratios.items())
    return f"{'kept' if verdict.passed else 'BROKEN'} ({ratios})"


def _accuracies(reports: Sequence[MlperfReport]) -> list[str]:
    lines = ["| model | samples | metric | certified | in accuracy mode | kept |", "|---|---|---|---|---|---|"]
    for report in reports:
        mark = report.accuracy
        found = "no truth known" if mark.found is None else f"{mark.found:.4f}"
        verdict = "yes" if mark.passed else "NO"
        lines.append(
            f"| {report.model} | {report.library}: {report.samples} | {mark.metric}, {mark.unit} | {mark.certified} "
            f"| {found} | {verdict} |"
        )
    return lines


def _origins(reports: Sequence[MlperfReport]) -> list[str]:
    return [
        f"{report.model} {report.version} on {report.provider}: commit {report.commit}, {report.date}, "
        f"{report.machine['cores']} cores of {report.machine['cpu']}, load before {report.machine['load_before'][0]}; "
        f"`{report.command}`.  "
        for report in reports
    ]


def limits(report: MlperfReport) -> list[str]:
    """Return where LoadGen and its client, not the service, may be what a figure says."""
    return [
        f"{report.model} {row.outcome.scenario}: the client used {row.outcome.client_cores:.2f} cores, and may be what "
        "limited"
        for row in report.rows
        if row.outcome.client_cores > CLIENT_CORES
    ]


def reasons(report: MlperfReport) -> list[str]:
    """Return why a report did not pass, a sentence each."""
    found = [] if report.accuracy.passed else [f"{report.model}: accuracy is below {QUALITY:.0%} of the certificate"]
    for row in report.rows:
        where = f"{report.model} {row.outcome.scenario}"
        if not row.outcome.is_valid:
            found += [f"{where}: {reason}" for reason in row.outcome.reasons or ["INVALID"]]
        found += [
            f"{where}, {verdict.name}: {reason}"
            for verdict in row.verdicts
            if not verdict.passed
            for reason in verdict.reasons
        ]
    return found
