"""Figures of the service's processes and of its device, looked up at each scrape."""

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import psutil
from bentoml._internal.context import server_context
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.process.watchdog import WORKER, living
from service.settings.environment import parent_pid, visible_devices

SUPERVISOR = "supervisor"
LABELS = ("process",)


class Processes(Collector):
    """Memory, time, files and age of every process of the service, by what it does."""

    def collect(self) -> Iterator[Metric]:
        """Yield the figures now; a process that is being replaced has none."""
        gauge = partial(GaugeMetricFamily, labels=LABELS)
        memory = gauge("lectern_process_resident_memory_bytes", "Memory that the process has.")
        files = gauge("lectern_process_open_fds", "Files and connections that the process has open.")
        start = gauge("lectern_process_start_timestamp_seconds", "When the process began, since 1970.")
        seconds = CounterMetricFamily(
            "lectern_process_cpu_seconds_total", "Time that the process has computed.", labels=LABELS
        )
        for pid, name in {parent_pid(): SUPERVISOR, **{pid: one.name for pid, one in living().items()}}.items():
            with suppress(psutil.Error):
                process = psutil.Process(pid)
                with process.oneshot():
                    spent = process.cpu_times()
                    found = (process.memory_info().rss, process.num_fds(), process.create_time())
                for family, figure in zip((memory, files, start), found, strict=True):
                    family.add_metric([name], figure)
                seconds.add_metric([name], spent.user + spent.system)
        yield from (memory, files, start, seconds)

    def describe(self) -> list[Metric]:
        """Nothing is looked up only to learn the names."""
        return []


class DeviceMemory(Collector):
    """Memory of the GPUs that this service may use."""

    def __init__(self) -> None:
        import pynvml

        self._nvml: Any = pynvml
        pynvml.nvmlInit()
        self._devices = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in _visible(pynvml.nvmlDeviceGetCount())]

    def collect(self) -> Iterator[Metric]:
        """Yield what is used, and all there is, of all of them together."""
        family = GaugeMetricFamily(
            "lectern_device_memory_bytes", "Memory of the GPUs: used by anybody, and all there is.", labels=("kind",)
        )
        found = [self._nvml.nvmlDeviceGetMemoryInfo(device) for device in self._devices]
        family.add_metric(["used"], sum(one.used for one in found))
        family.add_metric(["total"], sum(one.total for one in found))
        yield family

    def describe(self) -> list[Metric]:
        """As for the processes."""
        return []


def _visible(count: int) -> list[int]:
    """Return which GPUs this process may use, of so many."""
    chosen = [int(entry) for entry in visible_devices().split(",") if entry.strip().isdigit()]
    return [index for index in chosen if index < count] or [*range(count)]


def count_devices() -> int:
    """Return how many GPUs this process may use; at least 1, where nobody can be asked."""
    named = [entry for entry in visible_devices().split(",") if entry.strip()]
    if named:  # by their numbers or their names
        return len(named)
    with suppress(Exception):  # the border to the driver
        import pynvml

        pynvml.nvmlInit()
        return max(1, int(pynvml.nvmlDeviceGetCount()))
    return 1


def worker_name() -> str:
    """Return what this gateway process is called; whoever takes its place is called the same."""
    return f"{WORKER}{server_context.worker_index or 1}"


def collectors(*, uses_cuda: bool) -> list[Collector]:
    """Return what is looked up at each scrape on this machine."""
    found: list[Collector] = [Processes()]
    if uses_cuda:
        with suppress(Exception):  # the border to the driver: figures of a GPU must not cost the service
            found.append(DeviceMemory())
    return found
