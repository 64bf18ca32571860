"""One process's part of a load: its connections, its questions, and what became of each."""

import gc
from collections.abc import Callable
from time import perf_counter, process_time
from typing import Any

import gevent
import gevent.event
from gevent.pool import Group
from geventhttpclient.response import HTTPParseError

from loadtests.alarm import Timer
from loadtests.plan import ArrivalPlan
from loadtests.records import OK, Records
from loadtests.targets import Ask, LoadTarget, find_targets
from loadtests.wire import HttpClient

SILENT, BROKEN_HTTP = "no answer in time", "broken HTTP"
UNREACHABLE, BROKEN_OFF = "no connection", "connection broke"
# When a generator is late, how many requests leave before it looks for answers again.
BURST = 32
# For answers to what was under way when a run was interrupted.
LAST_SECONDS = 2.0

Fire = Callable[..., Any]


class RequestFailure(Exception):
    """Describe why a request failed."""


class GeneratorRound:
    """One offer under way; a request that ends after it still belongs to it.

    Attributes:
        stopped: Set when the run is interrupted; nothing is sent any more then.
        cpu_share: Of a core, in the counted part.
    """

    def __init__(self, offer: ArrivalPlan, stopped: gevent.event.Event) -> None:
        self.offer, self.stopped, self.records = offer, stopped, Records()
        self.began, self.cpu_share = perf_counter(), 0.0
        self._counted = self.began, process_time()
        warm = sum(phase.seconds for phase in offer.phases if not phase.is_counted)
        self._warm = gevent.spawn_later(warm, self._end_warm_up)

    def _end_warm_up(self) -> None:
        self._counted = perf_counter(), process_time()

    def note_cpu(self) -> None:
        """Keep the share of a core that the counted part took."""
        began, used = self._counted
        self.cpu_share = (process_time() - used) / max(perf_counter() - began, 1e-3)
        self._warm.kill()


class Generator:
    """Asks questions for any number of greenlets.

    Args:
        ask: What is to be asked.
        fire: Locust's event of an ended request, which feeds its own statistics.

    Raises:
        Unusable: If the service does not answer rightly even unloaded.
    """

    def __init__(self, ask: Ask, fire: Fire) -> None:
        self.wire, self._fire, self._timeout = HttpClient(ask.host, key=ask.key, timeout=ask.timeout), fire, ask.timeout
        self.targets: list[LoadTarget] = find_targets(ask, self.wire)
        # The pool of questions stays; walking through it again and again would make requests late.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)

    def ask(self, number: int, question: int, due: float, round_: GeneratorRound | None = None) -> str:
        """Ask one model one question that was due at a moment; note and return what became of it."""
        target = self.targets[number]
        lag, length = perf_counter() - due, 0
        try:
            answer = self.wire.ask(target.requests[question])
            latency, length = perf_counter() - due, len(answer.body)
            outcome = target.judge(question, answer)
        except gevent.GreenletExit:
            if round_ is not None and not round_.stopped.is_set():
                round_.records.add(due - round_.began, lag, perf_counter() - due, SILENT, number)
            raise
        except TimeoutError:
            latency, outcome = perf_counter() - due, SILENT
        except HTTPParseError:
            latency, outcome = perf_counter() - due, BROKEN_HTTP
        except ConnectionRefusedError:
            latency, outcome = perf_counter() - due, UNREACHABLE
        except OSError:
            latency, outcome = perf_counter() - due, BROKEN_OFF
        if round_ is not None:
            round_.records.add(due - round_.began, lag, latency, outcome, number)
        self._fire(
            request_type="POST",
            name=target.path,
            response_time=1000 * latency,
            response_length=length,
            exception=None if outcome == OK else RequestFailure(outcome),
            context={},
        )
        return outcome

    def offer(self, round_: GeneratorRound) -> None:
        """Send every request of an open loop when it is due, each on its own greenlet, and wait for the answers."""
        group = Group()
        sending = gevent.spawn(self._send, round_, group)
        gevent.wait([sending, round_.stopped], count=1)
        if sending.ready():
            sending.get()
        sending.kill()
        round_.note_cpu()
        group.join(LAST_SECONDS if round_.stopped.is_set() else self._timeout)
        group.kill()

    def _send(self, round_: GeneratorRound, group: Group) -> None:
        offer, began, alarm = round_.offer, round_.began, Timer()
        times = offer.schedule().tolist()
        choices = offer.choices([target.weight for target in self.targets], len(times)).tolist()
        counts = [len(target.requests) for target in self.targets]
        try:
            for at, (time, number) in enumerate(zip(times, choices, strict=True)):
                if not alarm.wait_until(began + time) and at % BURST == 0:
                    gevent.sleep(0)
                question = (offer.index + at * offer.workers) % counts[number]
                group.spawn(self.ask, number, question, began + time, round_)
            alarm.wait_until(began + offer.seconds)
        finally:
            alarm.close()
