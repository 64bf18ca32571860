"""The master's side of a run: what the workers are told, what comes back, and what both ends used meanwhile."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import gevent
import gevent.event
import msgspec

from loadtests import figures, result, scrape, watch
from loadtests.bottleneck import find_bottleneck
from loadtests.plan import ArrivalPlan, LoadPhase, until
from loadtests.records import RecordTable, merge
from loadtests.result import Finding, MeasuredValue, TimeWindow, Used
from loadtests.search import SearchStep, highest_held, interrupted, judge, search
from loadtests.task import LoadTask
from loadtests.wire import HttpClient

PREPARE, READY, OFFER, RECORDS = "lectern-prepare", "lectern-ready", "lectern-offer", "lectern-records"
STOP = "lectern-stop"
PREPARE_SECONDS, START_SECONDS, SLACK_SECONDS = 120.0, 0.1, 20.0
FAILED, INTERRUPTED = 3, 130
INTERRUPTED_EARLY = "interrupted before anything was measured"


class LoadBroken(Exception):
    """The run cannot go on; the message says why."""


class MeasuredLoad(NamedTuple):
    """What became of phases that were offered, those that were not counted first, and what was used meanwhile."""

    phases: list[LoadPhase]
    table: RecordTable
    used: Used
    metrics: list[MeasuredValue]
    reconnections: int


class Coordinator:
    """Runs one task on all workers and writes the result.

    Attributes:
        task: What is measured.
        workers: Generator processes.
        families: Of the models that are asked.
        is_done: Whether everything is measured, or cannot be.
        stopped: Set when the run is interrupted.
    """

    def __init__(self, runner: Any, task: LoadTask) -> None:
        self.task, self.workers, self.families, self.is_done = task, 1, list[str](), False
        self._runner, self._models = runner, list[list[str]]()
        self._ready, self._records = list[dict[str, Any]](), list[dict[str, Any]]()
        self.stopped = gevent.event.Event()
        self._wire = HttpClient(task.ask.host, key=task.ask.key, timeout=10)
        runner.register_message(READY, lambda msg, **_: self._ready.append(msg.data))
        runner.register_message(RECORDS, lambda msg, **_: self._records.append(msg.data))

    def run(self) -> None:
        """Measure; whatever happens, the run ends."""
        try:
            self._prepare()
            found = self._hunt() if self.task.hunt else self._profile()
            result.write(found, Path(self.task.out))
            self._runner.environment.process_exit_code = 0
        except (LoadBroken, OSError) as error:
            sys.stderr.write(f"lectern: {error}\n")
            self._runner.environment.process_exit_code = INTERRUPTED if self.stopped.is_set() else FAILED
        finally:
            self.is_done = True

    def stop(self) -> None:
        """End the measurement; what is known by then becomes the result."""
        if not self.stopped.is_set():
            self.stopped.set()
            self._runner.send_message(STOP, {})

    def _prepare(self) -> None:
        """Every worker makes its questions and their references."""
        self.workers = max(1, getattr(self._runner, "worker_count", 1))
        self._runner.send_message(PREPARE, {"ask": msgspec.json.encode(self.task.ask)})
        self._wait(self._ready, PREPARE_SECONDS, "was not prepared")
        if errors := sorted({message["error"] for message in self._ready} - {""}):
            raise LoadBroken("; ".join(errors))
        self._models = self._ready[0]["models"]
        self.families = sorted({family for *_, family in self._models})

    def _wait(self, messages: list[dict[str, Any]], seconds: float, what: str) -> None:
        with gevent.Timeout(seconds, False):
            while len(messages) < self.workers:
                if self.stopped.is_set() and messages is self._ready:
                    raise LoadBroken(INTERRUPTED_EARLY)
                gevent.sleep(0.01)
        if len(messages) < self.workers:
            raise LoadBroken(f"after {seconds:.0f} s one of {self.workers} generator processes {what}")

    def _measure(self, phases: list[LoadPhase], seed: int) -> MeasuredLoad:
        """Offer phases, the uncounted ones first, and collect what became of the requests.

        Raises:
            Broken: If a process does not report.
        """
        task, self._records[:] = self.task, []
        offer = ArrivalPlan(phases=phases, arrivals=task.arrivals, seed=seed, times=task.times, workers=self.workers)
        clients = [client.id for client in getattr(self._runner, "clients", {}).values()] or [None]
        for index, client in enumerate(clients):
            mine = msgspec.structs.replace(offer, index=index, users=task.users)
            self._runner.send_message(OFFER, {"offer": msgspec.json.encode(mine)}, client)
        seen, counted = watch.ProcessWatch(task.ask.host), figures.counted_seconds(phases)
        began = perf_counter()
        self.stopped.wait(offer.seconds - counted)
        before = self._metrics()
        seen.begin()
        if self.stopped.wait(counted):
            phases = until(phases, perf_counter() - began)
        used = seen.end([])
        after = self._metrics()
        self._wait(self._records, task.ask.timeout + SLACK_SECONDS, "did not report")
        shares = [message["cpu_share"] for message in self._records]
        used = msgspec.structs.replace(used, client_share=round(max(shares), 3), client_cores=round(sum(shares), 3))
        again = sum(message["reconnections"] for message in self._records)
        metrics = scrape.growth(before, after) if before and after else []
        return MeasuredLoad(phases, merge(self._records), used, metrics, again)

    def _metrics(self) -> str:
        try:
            answer = self._wire.ask(self._wire.request("/metrics"))
        except OSError:
            return ""
        return answer.body.decode() if answer.status == 200 else ""

    def _profile(self) -> result.LoadResult:
        measured = self._measure(self.task.phases, self.task.seed)
        if not figures.counted_seconds(measured.phases):
            raise LoadBroken(INTERRUPTED_EARLY)
        return self._describe(measured)

    def _hunt(self) -> result.LoadResult:
        """Try windows until the search ends; the last confirming window is what the report shows in detail."""
        assert self.task.hunt is not None  # the caller looked
        hunt, warm = search(self.task.hunt, self.task.objective), self.task.hunt.warm_seconds
        windows, shown, trial = list[TimeWindow](), list[MeasuredLoad](), next(hunt)
        while True:
            phases = [
                LoadPhase(name="warm-up", seconds=warm, rate=trial.rate, is_counted=False),
                LoadPhase(name=trial.stage, seconds=trial.seconds, rate=trial.rate),
            ]
            measured = self._measure(phases, self.task.seed + len(windows))
            if self.stopped.is_set():
                if not shown:
                    raise LoadBroken(INTERRUPTED_EARLY)
                return self._found(interrupted(windows), windows, shown[0])
            windows.append(self._judge(trial, measured, warm))
            _tell(windows[-1])
            if not shown or windows[-1].is_held:
                shown = [measured]
            self.stopped.wait(warm / 3 if windows[-1].is_held else warm)
            try:
                trial = hunt.send(windows[-1])
            except StopIteration as end:
                return self._found(end.value, windows, shown[0])

    def _found(self, finding: Finding, windows: list[TimeWindow], shown: MeasuredLoad) -> result.LoadResult:
        found = self._describe(shown)
        found.windows, found.finding = windows, msgspec.structs.replace(finding, held_rate=highest_held(windows))
        return found

    def _judge(self, trial: SearchStep, measured: MeasuredLoad, warm: float) -> TimeWindow:
        objective, table = self.task.objective, figures.counted(measured.phases, measured.table)
        later = table.where(table.due > warm + trial.seconds / 2)
        return judge(
            trial,
            figures.part(trial.stage, table, trial.seconds, objective),
            figures.part("later", later, trial.seconds / 2, objective),
            measured.used,
            objective,
            self.task.patience,
        )

    def _describe(self, measured: MeasuredLoad) -> result.LoadResult:
        task, phases, table, used = self.task, measured.phases, measured.table, measured.used
        counts, seconds = figures.counted(phases, table), figures.counted_seconds(phases)
        whole = figures.part("counted", counts, seconds, task.objective)
        names = [model[0] for model in self._models]
        late = find_bottleneck(whole, used, task.objective, task.patience)
        return result.LoadResult(
            profile=task.profile,
            command=" ".join(task.command),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            commit=watch.commit(),
            host=task.ask.host,
            machine=watch.machine(),
            versions=watch.versions(),
            models=self._models,
            weights=task.ask.weights or dict.fromkeys(names, 1.0),
            arrivals="closed" if task.users else "log" if task.times else str(task.arrivals),
            seed=task.seed,
            users=task.users,
            workers=self.workers,
            objective=task.objective,
            lag_limit_ms=task.patience.lag_ms(task.objective),
            whole=whole,
            parts=figures.by_phase(phases, table, task.objective),
            by_model=figures.by_model(names, counts, seconds, task.objective),
            moments=figures.moments(table, sum(phase.seconds for phase in phases)),
            percentiles=figures.curve(counts),
            used=used,
            metrics=measured.metrics,
            reconnections=measured.reconnections,
            client_limit=f"{late.what}: {late.why}" if late else "",
            is_interrupted=self.stopped.is_set(),
        )


def _tell(window: TimeWindow) -> None:
    said = "void" if window.is_void else "held" if window.is_held else "missed"
    p99 = window.part.latency_ms.get("p99", float("nan"))
    sys.stderr.write(f"{window.stage:<9} {window.rate:>9,.1f} requests/s  {said:<6} p99 {p99:8.1f} ms  {window.why}\n")
