"""The network of the view-count family: linear, or one to four ReLU layers, on the last 56 days."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.viewcount.schema import Assets

LEVEL_DAYS = 28


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseConfig:
    """Sizes of ``DenseNet``.

    Attributes:
        layers: Hidden layers; 0 is the lecture's linear model.
        width: Units per hidden layer.
        dropout: After each hidden layer.
        members: Nets trained side by side whose forecasts are averaged.
    """

    layers: int = 1
    width: int = 100
    dropout: float = 0.0
    members: int = 8


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


class DenseNet(nn.Module):
    """Fully-connected layers on the window, relative to its level; an ensemble of equals.

    A growing channel leaves the range it was trained on, so the net sees each day relative to the mean of the last
    28 days and answers in the same measure: with level ``l``, ``forecast = l (1 + f(x / l - 1))``, where ``f`` is the
    mean of members that differ in their starting weights (deep ensembles, Lakshminarayanan et al. 2017,
    arXiv:1612.01474). The interval is ``forecast * (1 + lower_ratio)`` to ``forecast * (1 + upper_ratio)``, one pair
    per day ahead, set by ``calibrate``.

    Shapes: views ``(B, 56)`` to forecast, lower and upper ``(B, 28)``, all views per day.
    """

    lower_ratio: Tensor
    upper_ratio: Tensor

    def __init__(self, config: DenseConfig, assets: Assets) -> None:
        super().__init__()
        self.config, self.horizon = config, assets.horizon
        count = config.members
        layers: list[nn.Module] = []
        for number in range(config.layers):
            layers.append(
                MemberLinear(count, config.width, config.width)
                if number
                else nn.Linear(assets.window, count * config.width)
            )
            layers += [nn.ReLU(), nn.Dropout(config.dropout)]
        self.hidden = nn.Sequential(*layers)
        units = count * config.width if config.layers else count * assets.window
        # Starts as "the level stays": the first forecasts are sane and the loss is at its natural scale.
        self.last = nn.Parameter(torch.zeros(units, assets.horizon))
        self.bias = nn.Parameter(torch.zeros(count, assets.horizon))
        self.register_buffer("lower_ratio", torch.zeros(assets.horizon))
        self.register_buffer("upper_ratio", torch.zeros(assets.horizon))

    def level(self, views: Tensor) -> Tensor:
        """Mean of the last 28 days, at least one view, ``(B, 1)``."""
        return views[:, -LEVEL_DAYS:].mean(1, keepdim=True).clamp_min(1.0)

    def units(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Level ``(B, 1)`` and the last hidden layer's units, member after member, ``(B, M width)``."""
        level = self.level(views)
        window = views / level - 1
        return level, self.hidden(window) if self.config.layers else window.repeat(1, self.config.members)

    def members(self, views: Tensor) -> Tensor:
        """Every member's own forecast, ``(B, M, 28)``; what training is about."""
        level, units = self.units(views)
        count = self.config.members
        last = self.last.reshape(count, -1, self.horizon)
        own = torch.einsum("bmu,mud->bmd", units.reshape(len(views), count, -1), last)
        return level.unsqueeze(1) * (1 + own + self.bias)

    def estimate(self, views: Tensor) -> Tensor:
        """The members' mean forecast, never negative, ``(B, 28)``."""
        level, units = self.units(views)
        mean = units @ (self.last / self.config.members) + self.bias.mean(0)
        return (level * (1 + mean)).clamp_min(0.0)

    def calibrate(self, views: Tensor, future: Tensor, coverage: float) -> None:
        """Set the interval to the quantiles of relative errors.

        Split conformal prediction (Vovk et al. 2005; Lei et al. 2018, arXiv:1604.04173, sec. 2.2) with one quantile
        on each side: of ``n`` errors the ``ceil((n + 1) q)``-th smallest.

        Args:
            views: ``(N, 56)`` windows the weights did not see.
            future: ``(N, 28)`` true views; NaN where unknown.
            coverage: E.g. 0.9.
        """
        with torch.no_grad():
            ratios = future / self.estimate(views).clamp_min(1.0) - 1
        for ahead in range(ratios.shape[1]):
            errors = ratios[:, ahead][~ratios[:, ahead].isnan()].sort().values
            # The smallest rank whose share is enough; the small term forgives 0.95 its binary form.
            rank = min(len(errors), math.ceil((len(errors) + 1) * (1 + coverage) / 2 - 1e-9)) - 1
            self.upper_ratio[ahead] = errors[rank]
            self.lower_ratio[ahead] = errors[len(errors) - 1 - rank]

    def forward(self, views: Tensor) -> dict[str, Tensor]:
        forecast = self.estimate(views)
        return {
            "forecast": forecast,
            "lower": (forecast * (1 + self.lower_ratio)).clamp_min(0.0),
            "upper": forecast * (1 + self.upper_ratio),
        }
