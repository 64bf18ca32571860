"""One process's part of a load: its connections, its questions, and what became of each."""

import gc
from collections.abc import Callable
from time import perf_counter, process_time
from typing import Any

import gevent
from gevent.pool import Group
from geventhttpclient.response import HTTPParseError

from loadtests.alarm import Alarm
from loadtests.plan import Offer
from loadtests.records import OK, Records
from loadtests.targets import Ask, Target, find_targets
from loadtests.wire import Wire

SILENT, BROKEN_HTTP = "no answer in time", "broken HTTP"
UNREACHABLE, BROKEN_OFF = "no connection", "connection broke"
# When a generator is late, how many requests leave before it looks for answers again.
BURST = 32

Fire = Callable[..., Any]


class Failure(Exception):
    """Why a request failed."""


class Round:
    """One offer under way; a request that ends after it still belongs to it."""

    def __init__(self, offer: Offer) -> None:
        self.offer, self.records = offer, Records()
        self.began, self.cpu_seconds, self._cpu_began = perf_counter(), 0.0, process_time()
        warm = sum(phase.seconds for phase in offer.phases if not phase.is_counted)
        self._warm = gevent.spawn_later(warm, self._end_warm_up)

    def _end_warm_up(self) -> None:
        self._cpu_began = process_time()

    def note_cpu(self) -> None:
        """Keep the CPU time of the counted part."""
        self.cpu_seconds = process_time() - self._cpu_began
        self._warm.kill()


class Asker:
    """Asks questions for any number of greenlets.

    Args:
        ask: What is to be asked.
        fire: Locust's event of an ended request, which feeds its own statistics.

    Raises:
        Unusable: If the service does not answer rightly even unloaded.
    """

    def __init__(self, ask: Ask, fire: Fire) -> None:
        self.wire, self._fire, self._timeout = Wire(ask.host, key=ask.key, timeout=ask.timeout), fire, ask.timeout
        self.targets: list[Target] = find_targets(ask, self.wire)
        # The pool of questions stays; walking through it again and again would make requests late.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)

    def ask(self, number: int, question: int, due: float, round_: Round) -> str:
        """Ask one model one question that was due at a moment; note and return what became of it."""
        target = self.targets[number]
        lag, length = perf_counter() - due, 0
        try:
            answer = self.wire.ask(target.requests[question])
            latency, length = perf_counter() - due, len(answer.body)
            outcome = target.judge(question, answer)
        except (gevent.GreenletExit, TimeoutError):
            latency, outcome = perf_counter() - due, SILENT
        except HTTPParseError:
            latency, outcome = perf_counter() - due, BROKEN_HTTP
        except ConnectionRefusedError:
            latency, outcome = perf_counter() - due, UNREACHABLE
        except OSError:
            latency, outcome = perf_counter() - due, BROKEN_OFF
        round_.records.add(due - round_.began, lag, latency, outcome, number)
        self._fire(
            request_type="POST",
            name=target.name,
            response_time=1000 * latency,
            response_length=length,
            exception=None if outcome == OK else Failure(outcome),
            context={},
        )
        return outcome

    def offer(self, round_: Round) -> None:
        """Send every request of an open loop when it is due, each on its own greenlet, and wait for the answers."""
        offer, began, alarm, group = round_.offer, round_.began, Alarm(), Group()
        times = offer.schedule().tolist()
        choices = offer.choices([target.weight for target in self.targets], len(times)).tolist()
        counts = [len(target.requests) for target in self.targets]
        for at, (time, number) in enumerate(zip(times, choices, strict=True)):
            if not alarm.wait_until(began + time) and at % BURST == 0:
                gevent.sleep(0)
            question = (offer.index + at * offer.workers) % counts[number]
            group.spawn(self.ask, number, question, began + time, round_)
        alarm.wait_until(began + offer.seconds)
        round_.note_cpu()
        group.join(self._timeout)
        group.kill()
        alarm.close()
