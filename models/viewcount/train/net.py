"""The network of the view-count family: linear, or some hidden layers, on the last days."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.viewcount.schema import Assets
from models.viewcount.train.layers import ACTIVATIONS, ActivationName, MeasureName, MemberLinear, measure


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseConfig:
    """Sizes of ``DenseNet``.

    Attributes:
        days: How many of the last 56 days are looked at.
        measure: What views are seen in: standardised, or relative to something of the window.
        level_days: Last days whose mean is the level.
        gain: Factor on what is seen; relative values are small.
        layers: Hidden layers; 0 is the lecture's linear model.
        width: Units per hidden layer.
        activation: Of the hidden layers.
        dropout: After each hidden layer.
        members: Nets trained side by side whose forecasts are averaged.
    """

    days: int = 56
    measure: MeasureName = "level"
    level_days: int = 28
    gain: float = 1.0
    layers: int = 1
    width: int = 100
    activation: ActivationName = "relu"
    dropout: float = 0.0
    members: int = 8


class DenseNet(nn.Module):
    """Fully-connected layers on the window, in a measure of its own; an ensemble of equals.

    A growing channel leaves the range it was trained on, so the net sees each day relative to the mean of the last
    days and answers in the same measure: with level ``l``, ``forecast = l (1 + f(x / l - 1))``, where ``f`` is the
    mean of members that differ in their starting weights (deep ensembles, Lakshminarayanan et al. 2017,
    arXiv:1612.01474). Other measures stand in ``layers``. The interval is ``forecast * (1 + lower_ratio)`` to
    ``forecast * (1 + upper_ratio)``, one pair per day ahead, set by ``calibrate``.

    Shapes: views ``(B, 56)`` to forecast, lower and upper ``(B, 28)``, all views per day.
    """

    lower_ratio: Tensor
    upper_ratio: Tensor

    def __init__(self, config: DenseConfig, assets: Assets) -> None:
        super().__init__()
        self.config, self.horizon = config, assets.horizon
        self.measure = measure(config.measure, config.level_days)
        count = config.members
        layers: list[nn.Module] = []
        for number in range(config.layers):
            layers.append(
                MemberLinear(count, config.width, config.width)
                if number
                else nn.Linear(config.days, count * config.width)
            )
            layers += [ACTIVATIONS[config.activation](), nn.Dropout(config.dropout)]
        self.hidden = nn.Sequential(*layers)
        units = count * (config.width if config.layers else config.days)
        # Starts as "the level stays": the first forecasts are sane and the loss is at its natural scale.
        self.last = nn.Parameter(torch.zeros(units, assets.horizon))
        self.bias = nn.Parameter(torch.zeros(count, assets.horizon))
        self.register_buffer("lower_ratio", torch.zeros(assets.horizon))
        self.register_buffer("upper_ratio", torch.zeros(assets.horizon))

    def units(self, views: Tensor) -> Tensor:
        """Return the last hidden layer's units, member after member, ``(B, M width)``."""
        window = self.measure(views)[:, -self.config.days :] * self.config.gain
        out: Tensor = self.hidden(window) if self.config.layers else window.repeat(1, self.config.members)
        return out

    def members(self, views: Tensor) -> Tensor:
        """Return every member's own answer in the net's measure, ``(B, M, 28)``; what training is about."""
        units, count = self.units(views), self.config.members
        last = self.last.reshape(count, -1, self.horizon)
        return torch.einsum("bmu,mud->bmd", units.reshape(len(views), count, -1), last) + self.bias

    def errors(self, views: Tensor, future: Tensor) -> Tensor:
        """Return each member's errors in the net's measure, ``(B, M, 28)``; NaN where the true views are unknown."""
        return self.members(views) - self.measure.target(future, views).unsqueeze(1)

    def estimate(self, views: Tensor) -> Tensor:
        """Return the forecast of the members' mean answer, never negative, ``(B, 28)``."""
        mean = self.units(views) @ (self.last / self.config.members) + self.bias.mean(0)
        return self.measure.answer(mean, views).clamp_min(0.0)

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
