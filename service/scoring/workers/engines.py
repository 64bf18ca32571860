"""Choose what parts are scored on: the cores of this machine, or a Ray cluster."""

import os
from collections.abc import Callable
from enum import StrEnum
from functools import partial

from service.scoring.execution.interfaces import Workload
from service.scoring.execution.run import OpenScorers
from service.scoring.workers.pool import Pool
from service.settings import settings


class Engine(StrEnum):
    """Describe where the workers are."""

    LOCAL = "local"
    RAY = "ray"


def choose(
    engine: Engine, address: str | None, *, workers: int | None, row_seconds: float, mixes: bool
) -> Callable[[Workload], OpenScorers]:
    """Return what opens the workers of an assignment.

    Args:
        engine: Where they are.
        address: The Ray cluster's.
        workers: How many; ``None``: one per core, or per GPU.
        row_seconds: How long one row may take.
        mixes: Whether other versions, or another CPU, than here will do.

    Raises:
        JobError: If it is not installed.
    """
    if engine is Engine.LOCAL:
        count = workers or default_workers()
        return lambda assignment: lambda aside: Pool(assignment, workers=count, row_seconds=row_seconds, aside=aside)
    from service.scoring.workers.ray_pool import RayPool, find_ray

    find_ray(address)
    opened = partial(
        RayPool, workers=workers, row_seconds=row_seconds, address=address, needs_gpu=has_gpu(), mixes=mixes
    )
    return lambda assignment: lambda aside: opened(assignment, aside=aside)


def default_workers() -> int:
    """Return one process per core, but one for a GPU."""
    return 1 if has_gpu() else len(os.sched_getaffinity(0))


def has_gpu() -> bool:
    """Return whether a GPU computes."""
    return settings().uses_cuda
