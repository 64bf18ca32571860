"""One run of LoadGen against a service."""

import multiprocessing
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import click
import msgspec
import numpy as np

from loadtests.mlperf.library import SampleLibrary
from loadtests.mlperf.network import Network
from loadtests.mlperf.scenario import MULTI_STREAM_SAMPLES, Purpose, Scenario, ScenarioSettings
from loadtests.mlperf.served import Address

# A request of so many instances is a handful of micro-batches: more waits at the service, less is more HTTP.
OFFLINE_INSTANCES = 64
OFFLINE_CONNECTIONS = 4
SERVER_CONNECTIONS = 512
_LINE = re.compile(r"^:::MLLOG (\{.*\})$", re.MULTILINE)


class _Answer(msgspec.Struct):
    predictions: list[msgspec.Raw]


_decode = msgspec.json.Decoder(_Answer).decode


class LoggedOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """Describe what LoadGen found.

    Attributes:
        is_valid: LoadGen says VALID, and every request was answered.
        reasons: Why it is not.
        figure: What the rules report: the early-stopping estimate in ms (streams), or samples per second.
        least_ms: The quickest query's latency; for Offline, of the first samples that came back.
        p50_ms: Of a query, as the other percentiles.
        failures: Samples without an answer, by the reason.
        client_cores: CPU time of LoadGen and the client for each second.
        settings: What LoadGen says it ran with.
    """

    scenario: Scenario
    is_valid: bool
    reasons: list[str]
    figure: float
    least_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    queries: int
    failures: dict[str, int]
    client_cores: float
    settings: dict[str, Any]
    loadgen: str

    @property
    def speed(self) -> float:
        """More is faster: samples per second where all are asked at once, else one by the median latency."""
        return self.figure if self.scenario is Scenario.OFFLINE else 1000 / self.p50_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedAnswers:
    """An outcome, with the samples whose answers LoadGen logged, and the answers."""

    outcome: LoggedOutcome
    answers: Sequence[tuple[int, bytes]]


def loadgen() -> Any:
    """LoadGen's Python module.

    Raises:
        click.ClickException: If it is not installed.
    """
    try:
        import mlperf_loadgen
    except ImportError as error:
        raise click.ClickException("mlcommons-loadgen is not installed; it is in the group load") from error
    return mlperf_loadgen


class LoggedPart:
    """Samples that travel in one request."""

    __slots__ = ("exam", "identities", "numbers")

    def __init__(self, exam: "LoadgenLog", samples: Sequence[tuple[int, int]]) -> None:
        self.exam = exam
        self.identities, self.numbers = zip(*samples, strict=True)

    def request(self) -> bytes:
        """Return the whole HTTP request."""
        return self.exam.library.request(self.numbers)

    def answered(self, outcome: str, body: bytes) -> None:
        """Hand the answers to LoadGen; no query may stay open, or it would wait for ever."""
        answers: Sequence[Any] = ()
        if outcome == "200":
            try:
                answers = _decode(body).predictions
            except msgspec.MsgspecError:
                outcome = "not understood"
            if answers and len(answers) != len(self.numbers):
                outcome, answers = "wrong number of predictions", ()
        if not answers:
            self.exam.failures[outcome] += len(self.numbers)
        self.exam.complete(self.identities, answers)


class LoadgenLog:
    """A system under test and its samples, as LoadGen wants them."""

    def __init__(self, library: SampleLibrary, network: Network, settings: ScenarioSettings) -> None:
        self.library, self.network = library, network
        self.failures = Counter[str]()
        self.size = {Scenario.OFFLINE: OFFLINE_INSTANCES, Scenario.MULTI_STREAM: MULTI_STREAM_SAMPLES}.get(
            settings.scenario, 1
        )
        self.loadgen = loadgen()

    def issue(self, samples: Sequence[Any]) -> None:
        """Send a query's samples; LoadGen calls this from a thread of its own."""
        pairs = [(sample.id, sample.index) for sample in samples]
        for start in range(0, len(pairs), self.size):
            self.network.ask(LoggedPart(self, pairs[start : start + self.size]))

    def complete(self, identities: Sequence[int], answers: Sequence[Any]) -> None:
        """Tell LoadGen of answers, in all runs alike: it alone knows which it will keep and compare."""
        response = self.loadgen.QuerySampleResponse
        if answers:
            arrays = [np.frombuffer(answer, np.uint8) for answer in answers]
            found = [
                response(identity, array.__array_interface__["data"][0], len(array))
                for identity, array in zip(identities, arrays, strict=True)
            ]
        else:
            found = [response(identity, 0, 0) for identity in identities]
        self.loadgen.QuerySamplesComplete(found)


def run(address: Address, library: SampleLibrary, settings: ScenarioSettings, logs: Path) -> LoggedAnswers:
    """Run LoadGen once, in a process of its own; its logs stay in ``logs``.

    LoadGen counts the configurations a process has read, and more than one makes a run unfit for submission. And a
    process can be ended: LoadGen waits for answers where nothing interrupts it.

    Raises:
        click.ClickException: If LoadGen is not there, or ends without a result.
    """
    loadgen()
    logs.mkdir(parents=True, exist_ok=True)
    for old in logs.glob("mlperf_log_*"):
        old.unlink()
    forked = multiprocessing.get_context("fork")
    ours, theirs = forked.Pipe(duplex=False)
    process = forked.Process(target=_examine, args=(address, library, settings, logs, theirs))
    process.start()
    theirs.close()
    try:
        failures, cores = ours.recv()
    except EOFError as error:
        raise click.ClickException(f"LoadGen ended without a result; its logs: {logs}") from error
    finally:
        ours.close()
        process.kill()
        process.join()
    outcome = _read(settings, failures, (logs / "mlperf_log_detail.txt").read_text(), cores)
    return LoggedAnswers(outcome=outcome, answers=_answers(logs / "mlperf_log_accuracy.json"))


def _examine(
    address: Address, library: SampleLibrary, settings: ScenarioSettings, logs: Path, result: Connection
) -> None:
    most = {Scenario.OFFLINE: OFFLINE_CONNECTIONS, Scenario.SERVER: SERVER_CONNECTIONS}.get(settings.scenario, 1)
    with Network(address, most) as network:
        exam = LoadgenLog(library, network, settings)
        cpu, began = process_time(), perf_counter()
        _start(exam, settings, logs)
        cpu, wall = process_time() - cpu, perf_counter() - began
    result.send((dict(exam.failures), cpu / wall))


def _start(exam: LoadgenLog, settings: ScenarioSettings, logs: Path) -> None:
    module, count = exam.loadgen, len(exam.library.samples)
    config = logs / "user.conf"
    config.write_text(settings.to_config())
    test = module.TestSettings()
    test.FromConfig(str(config), "lectern", str(settings.scenario))
    test.scenario = getattr(module.TestScenario, settings.scenario)
    is_accuracy = settings.purpose is Purpose.ACCURACY
    test.mode = module.TestMode.AccuracyOnly if is_accuracy else module.TestMode.PerformanceOnly
    test.accuracy_log_sampling_target = settings.logged
    test.performance_issue_unique = settings.purpose is Purpose.UNIQUE
    test.performance_issue_same = settings.purpose is Purpose.SAME
    test.performance_issue_same_index = settings.same
    output = module.LogSettings()
    output.enable_trace = False
    output.log_output.outdir = str(logs)
    under_test = module.ConstructSUT(exam.issue, _nothing)
    samples = module.ConstructQSL(count, count, _nothing, _nothing)
    module.StartTestWithLogSettings(under_test, samples, test, output, "")
    module.DestroyQSL(samples)
    module.DestroySUT(under_test)


def _nothing(*_: Any) -> None:
    """Every sample is in memory all the time, and nothing is held back to be flushed."""


def _read(settings: ScenarioSettings, failures: Mapping[str, int], log: str, cores: float) -> LoggedOutcome:
    found: dict[str, Any] = {}
    reasons = [f"{count} samples without an answer: {why}" for why, count in failures.items()]
    for line in _LINE.findall(log):
        entry = msgspec.json.decode(line)
        found[entry["key"]] = entry["value"]
        if entry["metadata"]["is_error"] or entry["key"] == "result_invalid_reason":
            reasons.append(str(entry["value"]).strip())
    if found.get("early_stopping_met") is False:
        reasons.append(" ".join(str(found.get("early_stopping_result", "")).replace("*", "").split()))
    is_accuracy = settings.purpose is Purpose.ACCURACY
    kind = "per_query_latency" if settings.scenario is Scenario.MULTI_STREAM else "latency"
    p50, p90, p99 = (found.get(f"result_{share}.00_percentile_{kind}_ns", 0) / 1e6 for share in (50, 90, 99))
    return LoggedOutcome(
        scenario=settings.scenario,
        is_valid=not failures and (is_accuracy or found.get("result_validity") == "VALID"),
        reasons=[reason for reason in reasons if reason],
        figure=_figure(settings.scenario, found),
        least_ms=found.get(f"result_min_{kind.removeprefix('per_')}_ns", 0) / 1e6,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        queries=int(found.get("result_query_count", 0)),
        failures=dict(failures),
        client_cores=round(cores, 3),
        settings={key.removeprefix("effective_"): value for key, value in found.items() if key.startswith("effective")},
        loadgen=str(found.get("loadgen_version", "unknown")),
    )


def _figure(scenario: Scenario, found: Mapping[str, Any]) -> float:
    key, unit = {
        Scenario.SINGLE_STREAM: ("early_stopping_latency_ss", 1e-6),
        Scenario.MULTI_STREAM: ("early_stopping_latency_ms", 1e-6),
        Scenario.SERVER: ("result_completed_samples_per_sec", 1),
        Scenario.OFFLINE: ("result_samples_per_second", 1),
    }[scenario]
    return float(found.get(key, 0)) * unit


def _answers(log: Path) -> list[tuple[int, bytes]]:
    entries = msgspec.json.decode(log.read_bytes() or b"[]")
    return [(int(entry["qsl_idx"]), bytes.fromhex(entry["data"])) for entry in entries]
