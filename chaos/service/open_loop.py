"""An open-loop load client: ``python -m chaos.service.open_loop < plan``.

Requests leave at times fixed beforehand, whatever the server does, each on an idle connection or a new one, and their
latency counts from when they were to leave, so that a slow server hides nothing. One thread, one epoll, one request a
connection at a time.
"""

import gc
import resource
import select
import socket
import sys
import zlib
from array import array
from collections import Counter, deque
from collections.abc import Callable
from time import perf_counter, process_time

import click
import msgspec

from benchmarks.harness.closed_loop import CLOSED, LENGTH, RECEIVE_BYTES
from chaos.service.arithmetic import goodput, percentile, schedule
from chaos.service.records import TICK_SECONDS, ChaosPhase, ChaosReport, Group, LoadPlan, OutcomeCounts

REFUSED, RESET, SILENT, UNSENT = b"refused", b"reset", b"silent", b"unsent"
# Below the five seconds after which the service closes an idle connection.
IDLE_SECONDS = 3.0
SPIN_SECONDS = 0.0015
# After a load that was too much, a server may refuse for so long.
AFTER_SECONDS = 5.0
MOST_FAILURES = 10_000


class OpenLoopConnection:
    """One connection, with at most one request on it."""

    __slots__ = ("held", "idle_at", "is_full", "number", "request", "socket")

    def __init__(self, port: int) -> None:
        self.held, self.request, self.number, self.idle_at = b"", b"", -1, 0.0
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect_ex(("127.0.0.1", port))
        self.is_full = True  # nothing can be sent before it is connected

    def send(self) -> bool:
        """Send what is left; whether that was all."""
        sent = self.socket.send(self.request)
        self.request = self.request[sent:]
        return not self.request

    def receive(self) -> bytes | None:
        """Return the whole answer, ``None`` before it is whole, empty when there will be none."""
        new = self.socket.recv(RECEIVE_BYTES)
        if not new:
            return b""
        data = self.held + new
        head = data.find(b"\r\n\r\n")
        if head >= 0:
            _, _, rest = data[:head].lower().partition(LENGTH)
            if len(data) >= head + 4 + int(rest.split(b"\r\n", 1)[0]):
                self.held = b""
                return data
        self.held = data
        return None


class OpenLoopPlan:
    """A plan under way."""

    def __init__(self, plan: LoadPlan) -> None:
        self.plan, self.poll = plan, select.epoll()
        self.links: dict[int, OpenLoopConnection] = {}
        self.idle: list[OpenLoopConnection] = []
        self.waiting: deque[int] = deque()
        self.times, self.phase_of = array("d"), array("H")
        self.begins = [sum(phase.seconds for phase in plan.phases[:number]) for number in range(len(plan.phases))]
        for number, (phase, began) in enumerate(zip(plan.phases, self.begins, strict=True)):
            found = schedule(phase.rate, phase.seconds, plan.seed + number)
            self.times.extend((found + began).tolist())
            self.phase_of.extend([number] * len(found))
        self.ends = self.begins[-1] + plan.phases[-1].seconds + plan.patience_seconds
        self.latencies: list[dict[bytes, array[float]]] = [{} for _ in plan.phases]
        self.lates = [array("d") for _ in plan.phases]
        self.last = [0.0 for _ in plan.phases]
        self.untold = [0 for _ in plan.phases]
        self.late_refusals = [0 for _ in plan.phases]
        ticks = int(self.ends / TICK_SECONDS) + 2
        self.good_ticks, self.bad_ticks = [0] * ticks, [0] * ticks
        self.answers, self.failures = Counter[str](), list[tuple[float, float, str]]()
        self.began, self.is_over, self.left = 0.0, False, len(self.times)

    def run(self) -> ChaosReport:
        """Send everything, and wait for what comes."""
        times, count, at = self.times, len(self.times), 0
        cpu, self.began = process_time(), perf_counter()
        while self.left and (now := perf_counter() - self.began) < self.ends:
            while at < count and times[at] <= now:
                self.waiting.append(at)
                at += 1
            while self.waiting and self._start(self.waiting[0]):
                self.waiting.popleft()
            gap = times[at] - (perf_counter() - self.began) if at < count else 0.05
            for number, event in self.poll.poll(0 if gap < SPIN_SECONDS else gap - SPIN_SECONDS / 2, 512):
                link = self.links[number]
                self._guard(link, self._receive if event & ~select.EPOLLOUT else self._send)
        wall, cpu = perf_counter() - self.began, process_time() - cpu
        self._give_up(at)
        return self._report(cpu / wall)

    def _start(self, number: int) -> bool:
        now = perf_counter()
        while self.idle:
            link = self.idle.pop()
            if now - link.idle_at < IDLE_SECONDS:
                break
            self._drop(link)
        else:
            if len(self.links) >= self.plan.most_connections:
                return False
            link = OpenLoopConnection(self.plan.port)
            self.links[link.socket.fileno()] = link
            self.poll.register(link.socket, select.EPOLLIN | select.EPOLLOUT)
        link.number, link.request = number, self.plan.requests[number % len(self.plan.requests)]
        self.lates[self.phase_of[number]].append(now - self.began - self.times[number])
        if not link.is_full:
            self._guard(link, self._send)
        return True

    def _guard(self, link: OpenLoopConnection, act: Callable[[OpenLoopConnection], None]) -> None:
        try:
            act(link)
        except ConnectionRefusedError:
            self._end(link, REFUSED)
        except OSError:
            self._end(link, RESET)

    def _send(self, link: OpenLoopConnection) -> None:
        is_full = not link.send()
        if is_full != link.is_full:
            link.is_full = is_full
            self.poll.modify(link.socket, select.EPOLLIN | (select.EPOLLOUT if is_full else 0))

    def _receive(self, link: OpenLoopConnection) -> None:
        answer = link.receive()
        if answer == b"":
            self._end(link, CLOSED)
        elif answer is not None:
            number, link.number = link.number, -1
            self._note(number, answer[9:12], answer)
            if b"connection: close" in answer[: answer.find(b"\r\n\r\n")]:
                self._drop(link)
            else:
                link.idle_at = perf_counter()
                self.idle.append(link)

    def _end(self, link: OpenLoopConnection, status: bytes) -> None:
        """A connection is gone; one that was idle owed nothing."""
        if link.number >= 0:
            self._note(link.number, status, b"")
        elif link in self.idle:
            self.idle.remove(link)
        self._drop(link)

    def _drop(self, link: OpenLoopConnection) -> None:
        del self.links[link.socket.fileno()]
        link.socket.close()

    def _note(self, number: int, status: bytes, answer: bytes) -> None:
        now, phase = perf_counter() - self.began, self.phase_of[number]
        self.latencies[phase].setdefault(status, array("d")).append(now - self.times[number])
        self.last[phase] = now
        self.left -= 1
        ticks = self.good_ticks if status == b"200" else self.bad_ticks
        ticks[min(int(now / TICK_SECONDS), len(ticks) - 1)] += 1
        if not answer and len(self.failures) < MOST_FAILURES:
            self.failures.append((self.times[number], now, status.decode()))
        if status in (b"429", b"503"):
            self.untold[phase] += b"\r\nretry-after: " not in answer
            self.late_refusals[phase] += self.times[number] > self.begins[phase] + AFTER_SECONDS
        if self.plan.keeps_answers and answer:
            head, _, body = answer.partition(b"\r\n\r\n")
            digest = head.partition(b"x-model-digest: ")[2].split(b"\r\n", 1)[0]
            self.answers[f"{status.decode()} {digest.decode()} {zlib.crc32(body):08x}"] += 1

    def _give_up(self, at: int) -> None:
        for link in self.links.values():
            if link.number >= 0:
                self._note(link.number, SILENT, b"")
        for number in [*self.waiting, *range(at, len(self.times))]:
            self._note(number, UNSENT, b"")

    def _report(self, cores: float) -> ChaosReport:
        return ChaosReport(
            began=self.began,
            phases=[self._tally(number, phase) for number, phase in enumerate(self.plan.phases)],
            good_ticks=self.good_ticks,
            bad_ticks=self.bad_ticks,
            client_cores=cores,
            failures=self.failures,
            answers=dict(self.answers),
        )

    def _tally(self, number: int, phase: ChaosPhase) -> OutcomeCounts:
        found = self.latencies[number]
        refusals = [*found.get(b"429", ()), *found.get(b"503", ())]
        return OutcomeCounts(
            offered=sum(map(len, found.values())),
            seconds=phase.seconds,
            late_p99_ms=1000 * percentile(self.lates[number], 0.99),
            groups={status.decode("latin-1"): _group(values) for status, values in found.items()},
            goodput=goodput(len(found.get(b"200", ())), self.begins[number], self.last[number], phase.seconds),
            without_retry_after=self.untold[number],
            refusals_p99_ms=1000 * percentile(refusals, 0.99),
            late_refusals=self.late_refusals[number],
        )


def _group(values: "array[float]") -> Group:
    return Group(
        count=len(values),
        p50_ms=1000 * percentile(values, 0.5),
        p99_ms=1000 * percentile(values, 0.99),
        worst_ms=1000 * max(values),
    )


@click.command(help=__doc__)
def main() -> None:
    """Run the plan on standard input (MessagePack) and write the report (JSON)."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.disable()
    plan = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=LoadPlan)
    sys.stdout.buffer.write(msgspec.json.encode(OpenLoopPlan(plan).run()))


if __name__ == "__main__":
    main()
