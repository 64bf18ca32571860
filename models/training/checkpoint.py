"""Keep a training run's state between epochs, so that it goes on to the same weights."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

FINAL_WEIGHTS, BEST_WEIGHTS, CHECKPOINT, REPORT = "final.pt", "best.pt", "checkpoint.pt", "result.json"


@dataclass(slots=True, kw_only=True)
class TrainingProgress:
    """Describe where a run stands after a whole epoch; what a checkpoint holds beside weights and optimiser."""

    epoch: int = 0
    best: float = 0.0
    best_epoch: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TrainingState:
    """Describe what changes while a net learns, and the folder that it is kept in."""

    net: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler | None
    directory: Path


def write(state: TrainingState, progress: TrainingProgress) -> None:
    """Keep where a run stands after a whole epoch."""
    content = {
        "net": state.net.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "schedule": state.schedule.state_dict() if state.schedule else None,
        "rng": torch.get_rng_state(),
        "progress": asdict(progress),
    }
    save(content, state.directory / CHECKPOINT)


def save(content: Mapping[str, Any], path: Path) -> None:
    """Write aside and rename, so that Ctrl-C never leaves half a file."""
    aside = path.with_suffix(".tmp")
    torch.save(content, aside)
    aside.replace(path)


def read(state: TrainingState) -> TrainingProgress | None:
    """Put a run where its checkpoint left it; ``None`` without one."""
    path = state.directory / CHECKPOINT
    if not path.exists():
        return None
    content = torch.load(path, weights_only=True)
    state.net.load_state_dict(content["net"])
    state.optimizer.load_state_dict(content["optimizer"])
    if state.schedule is not None:
        state.schedule.load_state_dict(content["schedule"])
    torch.set_rng_state(content["rng"])
    return TrainingProgress(**content["progress"])
