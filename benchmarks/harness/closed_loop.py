"""A closed-loop load client in Python, for machines without wrk: ``python -m benchmarks.harness.closed_loop < plan``.

One thread, one epoll, raw sockets, requests built beforehand, every latency kept. An answer costs it 10 to 25 µs of
CPU at 64 connections (``rate / client_cores`` in the results of ``python -m benchmarks.serving --client python --peers
mosec --workloads viewcount``), so its ceiling is 40,000 to 100,000 answers a second.
"""

import select
import socket
import sys
from collections import Counter
from time import perf_counter, process_time

import click
import msgspec

RECEIVE_BYTES, SEND_BUFFER_BYTES = 262_144, 1_048_576
LENGTH, CLOSED = b"content-length:", b"closed"


class ClosedLoopPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Whole requests for a port of this machine, in turn: for ``seconds``, or until ``total`` answers are there."""

    port: int
    requests: list[bytes]
    connections: int
    seconds: float = 60.0
    total: int | None = None
    repeats: int = 1


class ClosedLoopCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Describe what came back; ``statuses`` counts connections that ended without an answer as ``"closed"``."""

    answers: int
    seconds: float
    p50_ms: float
    p99_ms: float
    statuses: dict[str, int]
    cpu_seconds: float

    @property
    def errors(self) -> int:
        """Return what was not a 200."""
        return sum(self.statuses.values()) - self.statuses.get("200", 0)


class ClosedLoopConnection:
    """One connection with at most one request in flight."""

    def __init__(self, port: int) -> None:
        self.held, self.sent_at = b"", 0.0
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self.socket.setblocking(False)

    def send(self, request: bytes) -> None:
        """Send a whole request at once."""
        self.sent_at = perf_counter()
        if self.socket.send(request) != len(request):
            raise ValueError(f"a request of {len(request)} bytes does not fit the send buffer")

    def receive(self) -> bytes | None:
        """Return the status of the answer once it is whole, ``None`` before, ``CLOSED`` when there will be none."""
        try:
            new = self.socket.recv(RECEIVE_BYTES)
        except ConnectionError:
            new = b""
        if not new:
            return CLOSED
        data = self.held + new
        head = data.find(b"\r\n\r\n")
        is_whole = head >= 0 and len(data) >= head + 4 + _length(data[:head])
        self.held = b"" if is_whole else data
        return data[9:12] if is_whole else None


def _length(head: bytes) -> int:
    """Return the length of the body behind a head, which must say it."""
    _, name, rest = head.lower().partition(LENGTH)
    if not name:
        raise ValueError("an answer without a content length")
    return int(rest.split(b"\r\n", 1)[0])


class Drive:
    """A plan over open connections; may be run more than once."""

    def __init__(self, plan: ClosedLoopPlan) -> None:
        self.plan, self.poll = plan, select.epoll()
        self.wires: dict[int, ClosedLoopConnection] = {}
        self.sent, self.latencies, self.statuses = 0, list[float](), Counter[bytes]()
        for _ in range(plan.connections):
            self._open()

    def run(self) -> ClosedLoopCounts:
        """Send until the end; what is in flight when time is up does not count."""
        self.sent, self.latencies, self.statuses = 0, [], Counter()
        total = self.plan.total or sys.maxsize
        cpu, start = process_time(), perf_counter()
        for wire in self.wires.values():
            self._send(wire)
        while len(self.latencies) < total and (left := start + self.plan.seconds - perf_counter()) > 0:
            for number, _ in self.poll.poll(left):
                self._take(number)
        seconds, cpu = perf_counter() - start, process_time() - cpu
        if self.plan.total and len(self.latencies) < total:
            raise TimeoutError(f"{len(self.latencies)} of {total} answers after {seconds:.1f} s")
        ranked = sorted(self.latencies) or [0.0]
        return ClosedLoopCounts(
            answers=len(self.latencies),
            seconds=seconds,
            p50_ms=1000 * ranked[len(ranked) // 2],
            p99_ms=1000 * ranked[len(ranked) * 99 // 100],
            statuses={status.decode("latin-1"): count for status, count in self.statuses.items()},
            cpu_seconds=cpu,
        )

    def _take(self, number: int) -> None:
        wire = self.wires[number]
        if (status := wire.receive()) is None:
            return
        self.latencies.append(perf_counter() - wire.sent_at)
        self.statuses[status] += 1
        if status == CLOSED:
            self.wires.pop(number).socket.close()
            wire = self._open()
        self._send(wire)

    def _send(self, wire: ClosedLoopConnection) -> None:
        if self.plan.total is None or self.sent < self.plan.total:
            wire.send(self.plan.requests[self.sent % len(self.plan.requests)])
            self.sent += 1

    def _open(self) -> ClosedLoopConnection:
        wire = ClosedLoopConnection(self.plan.port)
        self.wires[wire.socket.fileno()] = wire
        self.poll.register(wire.socket, select.EPOLLIN)
        return wire


@click.command(help=__doc__)
def main() -> None:
    """Run the plan on standard input (MessagePack) and write one tally per repeat (JSON)."""
    drive = Drive(msgspec.msgpack.decode(sys.stdin.buffer.read(), type=ClosedLoopPlan))
    sys.stdout.buffer.write(msgspec.json.encode([drive.run() for _ in range(drive.plan.repeats)]))


if __name__ == "__main__":
    main()
