"""Stations on the machines of a Ray cluster, and what becomes of a part whose machine is gone.

What ``Pool`` is for one machine: an actor per worker, each a ``RemoteWorker``, which handles what rows do to the
process that scores them. What is left for this side are machines: a part whose actor is gone goes to another, and
another actor is asked for, which Ray places where there is room, or keeps waiting until there is.
"""

import logging
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from time import monotonic, sleep
from typing import Any

import msgspec

from models.errors import JobError, StackChanged
from service.scoring.execution.interfaces import PartResult, PartSpec, PoisonRow, RowError, Workload
from service.scoring.execution.planning import stack_of
from service.scoring.workers.pool import MOST_FRUITLESS, MOST_STILLBORN, ORDERS_EACH, START_SECONDS
from service.scoring.workers.remote_worker import READ_TOLD, RemoteTask, RemoteWorker
from service.scoring.workers.worker import KINDS, Stopped

INSTALL = "python -m pip install --constraint constraints.txt ray"
# Of a cluster that lives as long as this process: nothing but reports of a few hundred bytes lies in it.
OBJECT_STORE_BYTES = 80_000_000
# Read by Ray as it is imported. The first lets it listen on 127.0.0.1: on Linux it takes that for a mistake otherwise,
# and listens on every interface. The second: it tells its makers nothing.
OWN = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}


class RayAttempt(msgspec.Struct, kw_only=True):
    """A part on its way, and how many actors were gone before it was done."""

    cut: PartSpec
    known: dict[int, RowError]
    losses: int = 0


class ActorHandle:
    """One actor, seen from here."""

    def __init__(self, actor: Any) -> None:
        self.actor, self.is_ready = actor, False
        self.orders: deque[RayAttempt] = deque()
        self.awaited: deque[Any] = deque([actor.stack.remote()])


class RayPool:
    """Scores parts on a Ray cluster; a context manager that leaves none of its actors behind.

    Args:
        assignment: What the stations open; its input, its model and the work folder are where they are here.
        workers: How many there are at most; ``None``: one per core, or GPU, of the cluster.
        row_seconds: How long one row may take.
        aside: Where a part is to be written.
        address: The cluster's; ``None``: one that lives on this machine as long as this.
        needs_gpu: Whether each takes a GPU.
        mixes: Whether other versions, or another CPU, than here will do.
    """

    def __init__(
        self,
        assignment: Workload,
        *,
        workers: int | None,
        row_seconds: float,
        aside: Callable[[int], str],
        address: str | None = None,
        needs_gpu: bool = False,
        mixes: bool = False,
    ) -> None:
        self._ray = find_ray(address)
        self._assignment, self._row_seconds, self._aside, self._mixes = assignment, row_seconds, aside, mixes
        self._needs, self._address, self._wanted = "GPU" if needs_gpu else "CPU", address, workers
        self._seats, self._again = list[ActorHandle](), deque[RayAttempt]()
        self._names, self._stillborn, self._most = count(), 0, 0
        self._ready_at = monotonic()

    def __enter__(self) -> "RayPool":
        with _handlers_kept(), self._explained():
            # `--progress json` has standard error to itself, even when a node is lost.
            more: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
            if self._address is None:
                more |= {"num_cpus": self._wanted, "object_store_memory": OBJECT_STORE_BYTES}
                more |= {"include_dashboard": False}
            self._ray.init(address=self._address or "local", **more)
        self._most = self._wanted or int(self._ray.cluster_resources().get(self._needs, 0))
        if not self._most:
            self._ray.shutdown()
            raise JobError(f"no machine of this Ray cluster has a {self._needs}")
        return self

    def __exit__(self, *_: object) -> None:
        with _handlers_kept():
            for seat in self._seats:
                self._leave(seat)
            self._ray.shutdown()

    @property
    def room(self) -> int:
        """Return how many more parts it takes now."""
        waiting = len(self._again) + sum(len(seat.orders) for seat in self._seats)
        return ORDERS_EACH * self._most - waiting

    @property
    def running(self) -> set[int]:
        """Numbers of the parts that are being scored at this moment."""
        return {seat.orders[0].cut.index for seat in self._seats if seat.orders}

    def expect(self, parts: int) -> None:
        """So many parts are coming: actors take seconds to begin, and may do so before the parts are counted."""
        while len(self._seats) < min(parts, self._most):
            self._seats.append(self._seat())

    def submit(self, cut: PartSpec, known: dict[int, RowError]) -> None:
        """One more part."""
        self._again.append(RayAttempt(cut=cut, known=known))
        self._hand_out()

    def results(self, seconds: float) -> Iterator[PartResult | PoisonRow]:
        """Parts done and rows blamed, as they come within this time; ends with the first that came.

        Raises:
            LecternError: If the job cannot go on.
        """
        # An actor answers in the order in which it was asked.
        awaited = {seat.awaited[0]: seat for seat in self._seats if seat.awaited}
        if not awaited:
            sleep(seconds)
        with self._explained():
            come, _ = self._ray.wait([*awaited], timeout=seconds) if awaited else ([], [])
            if come:
                come, _ = self._ray.wait([*awaited], num_returns=len(awaited), timeout=0)
        for call in come:
            yield from self._listen(awaited[call])
            self._hand_out()
        self._check_start()

    def _listen(self, seat: ActorHandle) -> Iterator[PartResult | PoisonRow]:
        """Yield what the actor has answered; if it is gone, that."""
        try:
            answer = self._ray.get(seat.awaited[0])
        except self._ray.exceptions.RayActorError as error:
            self._lose(seat, error)
            return
        except self._ray.exceptions.RayError as error:
            raise JobError(f"a worker on Ray failed: {_last_line(error)}") from error
        seat.awaited.popleft()
        if not seat.is_ready:
            self._welcome(seat, answer)
            return
        told = READ_TOLD.decode(answer)
        if isinstance(told, Stopped):
            raise KINDS[told.kind](told.reason)
        seat.orders.popleft()
        yield from told.blames
        yield told.done

    def _welcome(self, seat: ActorHandle, stack: str) -> None:
        """It may score, if it is a machine like this one."""
        here = stack_of(self._assignment)
        if stack != here and not self._mixes:
            raise StackChanged(
                f"a machine of the cluster has {stack}, here is {here}: bytes may differ; --mix allows it"
            )
        seat.is_ready, self._stillborn = True, 0

    def _lose(self, seat: ActorHandle, error: Exception) -> None:
        """Another actor, and the parts of the one that is gone to whoever is free."""
        self._leave(seat)
        if not seat.is_ready:
            self._stillborn += 1
            if self._stillborn >= MOST_STILLBORN * self._most:
                raise JobError(f"{self._stillborn} workers on Ray ended before they were ready: {_last_line(error)}")
        if seat.orders:
            seat.orders[0].losses += 1
            if seat.orders[0].losses > MOST_FRUITLESS:
                found = seat.orders[0]
                times = f"{found.losses} workers on Ray were gone at part {found.cut.index}"
                raise JobError(f"{times}, and no row is to blame; the last time: {_last_line(error)}")
        self._again.extendleft(reversed(seat.orders))
        self._seats[self._seats.index(seat)] = self._seat()

    def _hand_out(self) -> None:
        """Every part that waits goes to the actor with the least to do, of those that have begun."""
        self.expect(min(len(self._again), self._most))
        ready = [seat for seat in self._seats if seat.is_ready]
        while self._again and ready:
            seat = min(ready, key=lambda each: len(each.orders))
            if len(seat.orders) >= ORDERS_EACH:
                return
            trial = self._again.popleft()
            task = RemoteTask(cut=trial.cut, aside=self._aside(trial.cut.index), known=trial.known)
            seat.orders.append(trial)
            seat.awaited.append(seat.actor.score.remote(msgspec.msgpack.encode(task)))

    def _check_start(self) -> None:
        """Raise ``JobError`` if there has been no worker for too long."""
        if any(seat.is_ready for seat in self._seats) or not self._seats:
            self._ready_at = monotonic()
        elif monotonic() - self._ready_at > START_SECONDS:
            raise JobError(f"no machine of the Ray cluster had a free {self._needs} in {START_SECONDS:.0f} s")

    def _seat(self) -> ActorHandle:
        # The station's process is the actor's; the one that scores is that one's child, and takes the core.
        options = {"num_cpus": 1, "num_gpus": 1} if self._needs == "GPU" else {"num_cpus": 1}
        actor = self._ray.remote(RemoteWorker).options(scheduling_strategy="SPREAD", max_restarts=0, **options)
        return ActorHandle(actor.remote(self._assignment, self._row_seconds, f"s{next(self._names)}"))

    def _leave(self, seat: ActorHandle) -> None:
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(seat.actor)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors of Ray's own as errors of the job."""
        try:
            yield
        except (self._ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError) as error:
            raise JobError(f"the Ray cluster {self._address or ''} cannot be used: {_last_line(error)}") from error


def find_ray(address: str | None) -> Any:
    """Ray, if it is installed.

    Args:
        address: Of the cluster that is meant; ``None``: one of this process's own.

    Raises:
        JobError: If it is not.
    """
    if address is None:
        os.environ.update(OWN)
    try:
        import ray
    except ImportError as error:
        raise JobError(f"--engine ray needs Ray, which is not installed here: {INSTALL}") from error
    return ray


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Ray sets a handler of its own for SIGTERM, which would end a job that is to pause."""
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
