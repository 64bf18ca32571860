"""The master's side of a run: what the workers are told, what comes back, and what both ends used meanwhile."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gevent
import gevent.event
import msgspec

from loadtests import figures, result, scrape, watch
from loadtests.plan import Offer, Phase
from loadtests.records import Table, merge
from loadtests.result import Finding, Metric, Used, Window
from loadtests.search import Trial, client_limit, judge, search
from loadtests.task import Task
from loadtests.wire import Wire

PREPARE, READY, OFFER, RECORDS = "lectern-prepare", "lectern-ready", "lectern-offer", "lectern-records"
PREPARE_SECONDS, START_SECONDS, SLACK_SECONDS = 120.0, 0.1, 20.0
FAILED = 3


class Broken(Exception):
    """The run cannot go on; the message says why."""


class Conductor:
    """Runs one task on all workers and writes the result.

    Attributes:
        task: What is measured.
        workers: Generator processes.
        families: Of the models that are asked.
        is_done: Whether everything is measured, or cannot be.
    """

    def __init__(self, runner: Any, task: Task) -> None:
        self.task, self.workers, self.families, self.is_done = task, 1, list[str](), False
        self._runner, self._models = runner, list[list[str]]()
        self._ready, self._records = list[dict[str, Any]](), list[dict[str, Any]]()
        self._wire = Wire(task.ask.host, key=task.ask.key, timeout=10)
        runner.register_message(READY, lambda msg, **_: self._ready.append(msg.data))
        runner.register_message(RECORDS, lambda msg, **_: self._records.append(msg.data))

    def run(self) -> None:
        """Measure; whatever happens, the run ends."""
        try:
            self._prepare()
            found = self._hunt() if self.task.hunt else self._profile()
            result.write(found, Path(self.task.out))
            self._runner.environment.process_exit_code = 0
        except (Broken, OSError) as error:
            sys.stderr.write(f"lectern: {error}\n")
            self._runner.environment.process_exit_code = FAILED
        finally:
            self.is_done = True

    def _prepare(self) -> None:
        """Every worker makes its questions and their references."""
        self.workers = max(1, getattr(self._runner, "worker_count", 1))
        self._runner.send_message(PREPARE, {"ask": msgspec.json.encode(self.task.ask)})
        self._wait(self._ready, PREPARE_SECONDS, "was not prepared")
        if errors := sorted({message["error"] for message in self._ready} - {""}):
            raise Broken("; ".join(errors))
        self._models = self._ready[0]["models"]
        self.families = sorted({family for *_, family in self._models})

    def _wait(self, messages: list[dict[str, Any]], seconds: float, what: str) -> None:
        with gevent.Timeout(seconds, False):
            while len(messages) < self.workers:
                gevent.sleep(0.01)
        if len(messages) < self.workers:
            raise Broken(f"after {seconds:.0f} s one of {self.workers} generator processes {what}")

    def _measure(self, phases: list[Phase], seed: int) -> tuple[Table, Used, list[Metric], int]:
        """Offer phases, the uncounted ones first, and collect what became of the requests."""
        task, self._records[:] = self.task, []
        offer = Offer(phases=phases, arrivals=task.arrivals, seed=seed, times=task.times, workers=self.workers)
        clients = [client.id for client in getattr(self._runner, "clients", {}).values()] or [None]
        for index, client in enumerate(clients):
            mine = msgspec.structs.replace(offer, index=index, users=task.users)
            self._runner.send_message(OFFER, {"offer": msgspec.json.encode(mine)}, client)
        seen = watch.Watch(task.ask.host)
        counted = figures.counted_seconds(phases)
        gevent.sleep(offer.seconds - counted)
        before = self._metrics()
        seen.begin()
        gevent.sleep(counted)
        used = seen.end([])
        after = self._metrics()
        self._wait(self._records, task.ask.timeout + SLACK_SECONDS, "did not report")
        shares = [message["cpu_share"] for message in self._records]
        used = msgspec.structs.replace(used, client_share=round(max(shares), 3), client_cores=round(sum(shares), 3))
        table = merge(self._records)
        again = sum(message["reconnections"] for message in self._records)
        return table, used, scrape.growth(before, after) if before and after else [], again

    def _metrics(self) -> str:
        try:
            answer = self._wire.ask(self._wire.request("/metrics"))
        except OSError:
            return ""
        return answer.body.decode() if answer.status == 200 else ""

    def _profile(self) -> result.Result:
        phases = self.task.phases
        table, used, metrics, again = self._measure(phases, self.task.seed)
        found = self._describe(phases, table, used, metrics)
        found.reconnections = again
        found.moments = figures.moments(table, sum(phase.seconds for phase in phases))
        return found

    def _hunt(self) -> result.Result:
        """Try windows until the search ends; the last confirming window is what the report shows in detail."""
        assert self.task.hunt is not None  # the caller looked
        hunt, windows, shown, warm = (
            search(self.task.hunt, self.task.objective),
            list[Window](),
            None,
            self.task.hunt.warm_seconds,
        )
        trial = next(hunt)
        while True:
            phases = [
                Phase(name="warm-up", seconds=warm, rate=trial.rate, is_counted=False),
                Phase(name=trial.stage, seconds=trial.seconds, rate=trial.rate),
            ]
            table, used, metrics, _ = self._measure(phases, self.task.seed + len(windows))
            windows.append(self._judge(trial, figures.counted(phases, table), used, warm))
            _tell(windows[-1])
            if shown is None or windows[-1].is_held:
                shown = phases, table, used, metrics
            gevent.sleep(warm / 3 if windows[-1].is_held else warm)
            try:
                trial = hunt.send(windows[-1])
            except StopIteration as end:
                return self._found(end.value, windows, shown)

    def _found(self, finding: Finding, windows: list[Window], shown: Any) -> result.Result:
        found = self._describe(*shown)
        found.moments = figures.moments(shown[1], sum(phase.seconds for phase in shown[0]))
        found.windows, found.finding = windows, finding
        return found

    def _judge(self, trial: Trial, table: Table, used: Used, warm: float) -> Window:
        objective = self.task.objective
        later = table.where(table.due > warm + trial.seconds / 2)
        return judge(
            trial,
            figures.part(trial.stage, table, trial.seconds, objective),
            figures.part("later", later, trial.seconds / 2, objective),
            used,
            objective,
            self.task.patience,
        )

    def _describe(self, phases: list[Phase], table: Table, used: Used, metrics: list[Metric]) -> result.Result:
        task = self.task
        counts, seconds = figures.counted(phases, table), figures.counted_seconds(phases)
        whole = figures.part("counted", counts, seconds, task.objective)
        names = [model[0] for model in self._models]
        return result.Result(
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
            moments=[],
            percentiles=figures.curve(counts),
            used=used,
            metrics=metrics,
            client_limit=client_limit(whole, used, task.objective, task.patience),
        )


def _tell(window: Window) -> None:
    said = "void" if window.is_void else "held" if window.is_held else "missed"
    p99 = window.part.latency_ms.get("p99", float("nan"))
    sys.stderr.write(f"{window.stage:<9} {window.rate:>9,.1f} requests/s  {said:<6} p99 {p99:8.1f} ms  {window.why}\n")
