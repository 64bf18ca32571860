"""Define the view-count network's parts: measures in which it sees views, and layers of independent members."""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

MeasureName = Literal["raw", "level", "log", "weekday"]
ActivationName = Literal["relu", "tanh", "sigmoid", "hard sigmoid"]
WEEK = 7


class HardSigmoid(nn.Module):
    """A slope between two flat ends, ``clip(x / 6 + 1/2, 0, 1)``; two ReLU units make one."""

    def forward(self, x: Tensor) -> Tensor:
        return (x / 6 + 0.5).clamp(0.0, 1.0)


ACTIVATIONS: Mapping[ActivationName, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "hard sigmoid": HardSigmoid,
}


class MemberLinear(nn.Linear):
    """A linear layer in which each member sees only its own inputs: ``(B, M inputs)`` to ``(B, M outputs)``.

    One matrix with zeros between members, not a stack of small ones: ONNX Runtime's product with a single constant
    matrix gives a row the same bits in any batch, its stacked product does not (measured: one unit in the last place).
    """

    mask: Tensor

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__(members * inputs, members * outputs)
        self.register_buffer("mask", torch.kron(torch.eye(members), torch.ones(outputs, inputs)))
        nn.init.uniform_(self.weight, -(inputs**-0.5), inputs**-0.5)  # as nn.Linear starts for one member

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight * self.mask, self.bias)


class Measure(nn.Module):
    """The measure the network sees views in and answers in; zero is an answer that makes sense.

    A subclass has ``forward``, views ``(B, 56)`` to the window the net sees ``(B, 56)``; ``scale``, two tensors of one
    or 28 columns; and, where the answer is not ``shift + size * own``, ``answer`` and ``target`` too.
    """

    def fit(self, views: Tensor) -> None:
        """Learn constants from training windows ``(N, 56)``, if there are any."""

    def scale(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and size of an answer, in views per day."""
        raise NotImplementedError

    def answer(self, own: Tensor, views: Tensor) -> Tensor:
        """Return the net's own answer ``(B, 28)`` in views per day."""
        shift, size = self.scale(views)
        return shift + size * own

    def target(self, future: Tensor, views: Tensor) -> Tensor:
        """Return what the net should have answered, from true views ``(B, 28)``; the inverse of ``answer``."""
        shift, size = self.scale(views)
        return (future - shift) / size


class Raw(Measure):
    """The lecture's: views less their mean over their standard deviation, both of the training days."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, 1))
        self.register_buffer("std", torch.ones(1, 1))

    def fit(self, views: Tensor) -> None:
        self.mean.fill_(views.mean())
        self.std.fill_(views.std().clamp_min(1.0))

    def scale(self, views: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean, self.std

    def forward(self, views: Tensor) -> Tensor:
        return (views - self.mean) / self.std


class Level(Measure):
    """Relative to the mean ``l`` of the last days, ``x / l - 1``: a growing channel stays in its range."""

    def __init__(self, days: int) -> None:
        super().__init__()
        self.days = days

    def scale(self, views: Tensor) -> tuple[Tensor, Tensor]:
        level = views[:, -self.days :].mean(1, keepdim=True).clamp_min(1.0)  # (B, 1)
        return level, level

    def forward(self, views: Tensor) -> Tensor:
        return views / self.scale(views)[1] - 1


class Log(Level):
    """Logarithms less the mean logarithm of the last days: a doubling is as far as a halving."""

    def scale(self, views: Tensor) -> tuple[Tensor, Tensor]:
        shift = views[:, -self.days :].clamp_min(1.0).log().mean(1, keepdim=True)  # (B, 1)
        return shift, torch.ones_like(shift)

    def forward(self, views: Tensor) -> Tensor:
        return views.clamp_min(1.0).log() - self.scale(views)[0]

    def answer(self, own: Tensor, views: Tensor) -> Tensor:
        # A hundred thousand times the level is no forecast; without a bound an untrained net overflows.
        return (self.scale(views)[0] + own.clamp(-12.0, 12.0)).exp()

    def target(self, future: Tensor, views: Tensor) -> Tensor:
        return future.clamp_min(1.0).log() - self.scale(views)[0]


class Weekday(Measure):
    """Relative to the mean of the same weekday over the whole weeks seen: ``x / l_w - 1``."""

    def weekdays(self, views: Tensor) -> Tensor:
        """Mean of each weekday, the first forecast day's first, ``(B, 7)``."""
        total = views[:, :WEEK]
        for start in range(WEEK, views.shape[1], WEEK):
            total = total + views[:, start : start + WEEK]
        return (total / (views.shape[1] // WEEK)).clamp_min(1.0)

    def scale(self, views: Tensor) -> tuple[Tensor, Tensor]:
        days = self.weekdays(views).repeat(1, 4)  # (B, 28)
        return days, days

    def forward(self, views: Tensor) -> Tensor:
        return views / self.weekdays(views).repeat(1, views.shape[1] // WEEK) - 1


def measure(name: MeasureName, level_days: int) -> Measure:
    """Return the measure of that name."""
    makers: dict[MeasureName, Callable[[], Measure]] = {
        "raw": Raw,
        "level": lambda: Level(level_days),
        "log": lambda: Log(level_days),
        "weekday": Weekday,
    }
    return makers[name]()
