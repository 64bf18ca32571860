"""Defects planted in a server, to see a trial fail, and the blows that no signal can deal.

A server started with ``chaos/service/planted`` on its ``PYTHONPATH`` plants those that ``TORTURE_FAULTS`` names.
Nothing in the service knows of it.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import itertools
import mmap
import os
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

NAMES, CLOCK_FILE, DESCRIPTORS = "TORTURE_FAULTS", "TORTURE_CLOCK_FILE", "TORTURE_DESCRIPTORS"
STALL_SECONDS = 0.12
LEAK_BYTES = 4000


class _Loader(importlib.abc.Loader):
    """Loads a module as ever, then changes it."""

    def __init__(self, loader: Any, change: Callable[[Any], None]) -> None:
        self._loader, self._change = loader, change

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        found: ModuleType | None = self._loader.create_module(spec)
        return found

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._change(module)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds one module, once."""

    def __init__(self, name: str, change: Callable[[Any], None]) -> None:
        self._name, self._change = name, change

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None:
            spec.loader = _Loader(spec.loader, self._change)
        return spec


def after_import(name: str, change: Callable[[Any], None]) -> None:
    """Change a module as soon as it is imported."""
    sys.meta_path.insert(0, _Finder(name, change))


def _stalls() -> None:
    """The event loop stands still for a moment, ten times a second."""

    def change(module: Any) -> None:
        tick = module.Server.on_tick

        async def on_tick(self: Any, counter: int) -> bool:
            time.sleep(STALL_SECONDS)
            is_over: bool = await tick(self, counter)
            return is_over

        module.Server.on_tick = on_tick

    after_import("uvicorn.server", change)


def _ignores_deadlines() -> None:
    """Every request has all the time in the world."""

    def change(module: Any) -> None:
        submit = module.InferenceGateway.submit

        def patient(self: Any, exchange: Any, body: bytes, media_type: str, timeout_seconds: float) -> None:
            submit(self, exchange, body, media_type, 3600.0)

        module.InferenceGateway.submit = patient

    after_import("service.inference.gateway", change)


def _ignores_leaving() -> None:
    """A caller that left is answered all the same."""

    def change(module: Any) -> None:
        module.InferenceRequest.abandon = lambda self: None

    after_import("service.inference.request", change)


def _leak() -> None:
    """Every answer leaves something behind."""

    def change(module: Any) -> None:
        write, kept = module.JsonPayloads.write, []

        def leaky(self: Any, predictions: Any) -> Any:
            kept.append(os.urandom(LEAK_BYTES))
            return write(self, predictions)

        module.JsonPayloads.write = leaky

    after_import("models.payload.json_payload", change)


def _labels() -> None:
    """Every path gets to BentoML, which labels its metrics with it."""

    def change(module: Any) -> None:
        class Everything:
            def __contains__(self, path: object) -> bool:
                return True

        module.BENTOML_ROUTES = Everything()

    after_import("service.server.routes", change)


def _abrupt() -> None:
    """SIGTERM ends a worker at once, whatever it owes."""
    after_import("uvicorn.server", lambda module: setattr(module.Server, "handle_exit", lambda *_: os._exit(1)))


def _clock() -> None:
    """``time.time`` is off by as many seconds as a file says."""
    with open(os.environ[CLOCK_FILE], "rb") as file:
        shown = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
    true = time.time
    time.time = lambda: true() + float(struct.unpack_from("d", shown)[0])


def _wall_clock_deadlines() -> None:
    """Deadlines are counted on the clock that can jump."""

    def change(module: Any) -> None:
        module.monotonic = lambda: time.time()

    for name in ("gateway", "request", "scheduler"):
        after_import(f"service.inference.{name}", change)


def _wrong_digest() -> None:
    """Every answer names the first version that answered."""

    def change(module: Any) -> None:
        ok, first = module.ok, list[bytes]()

        def named(content: bytes, request_id: bytes, digest: bytes, more: Any) -> Any:
            first.extend([] if first else [digest])
            return ok(content, request_id, first[0], more)

        module.ok = named

    after_import("service.server.prediction", change)


def _keeps_headers() -> None:
    """Headers and trailers are kept, however many they are."""

    def change(module: Any) -> None:
        module.MOST_HEADERS = module.MOST_HEADER_BYTES = 2**60
        module._DiscardedTrailers.append = list.append

    after_import("service.server.fast_path", change)


def _few_descriptors() -> None:
    """A process may open few files and connections."""
    few = int(os.environ[DESCRIPTORS])
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, few))


def _small_files() -> None:
    """No file may grow beyond a kilobyte from the moment the process is told by SIGUSR2."""
    signal.signal(signal.SIGUSR2, lambda *_: resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024)))


def _miscounts() -> None:
    """One answer in fifty is not counted."""

    def change(module: Any) -> None:
        answer, turns = module.RequestCounters.answer, itertools.count()

        def forgetful(self: Any, *what: Any) -> None:
            if next(turns) % 50 != 7:
                answer(self, *what)

        module.RequestCounters.answer = forgetful

    after_import("service.inference.measurements", change)


def _no_metrics() -> None:
    """Nothing of the request's way is counted or measured."""

    def change(module: Any) -> None:
        for name in ("begin", "read", "answer", "fail", "abandon", "refuse"):
            setattr(module.RequestCounters, name, lambda *_: None)
        for name in ("begin", "end", "spend", "drop"):
            setattr(module.BatchMeter, name, lambda *_: None)

    after_import("service.inference.measurements", change)


FAULTS: dict[str, Callable[[], None]] = {
    "stalls": _stalls,
    "ignores_deadlines": _ignores_deadlines,
    "ignores_leaving": _ignores_leaving,
    "leak": _leak,
    "labels": _labels,
    "abrupt": _abrupt,
    "clock": _clock,
    "wall_clock_deadlines": _wall_clock_deadlines,
    "wrong_digest": _wrong_digest,
    "keeps_headers": _keeps_headers,
    "few_descriptors": _few_descriptors,
    "small_files": _small_files,
    "miscounts": _miscounts,
    "no_metrics": _no_metrics,
}


def plant() -> None:
    """Plant what the environment names."""
    for name in filter(None, os.environ.get(NAMES, "").split(",")):
        FAULTS[name]()
