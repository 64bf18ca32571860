"""Self-attention over the patches of a picture."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from models.image.schema import Assets
from models.image.train.layers import Standardise, convolution

Position = Literal["none", "patch", "axes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchAttentionConfig:
    """Sizes of ``PatchAttentionNet``.

    Attributes:
        patch: Side of a patch in pixels; with 1, every pixel attends to every other.
        width: Channels of a patch.
        layers: Encoder layers.
        heads: Attention heads.
        expansion: Hidden units of the feed-forward part per channel.
        dropout: After attention and feed-forward.
        skip_rate: How often a picture passes by an attention or feed-forward part while learning.
        stem: How a patch becomes a vector: one matrix over its pixels, or small convolutions, which see across
            its border; they need a patch of 4.
        position: A vector per patch (``"patch"``), the sum of one per row and one per column (``"axes"``), or none.
        is_decaying: Whether attention falls off with the distance between patches.
    """

    patch: int = 4
    width: int = 96
    layers: int = 4
    heads: int = 4
    expansion: int = 2
    dropout: float = 0.1
    skip_rate: float = 0.0
    stem: Literal["linear", "convolution"] = "linear"
    position: Position = "patch"
    is_decaying: bool = False


class DistanceDecay(nn.Module):
    """``-lambda_h |i - j|``, which multiplies attention weights by ``exp(-lambda_h |i - j|)`` before they are normed.

    ``|i - j|`` is the distance on the grid of patches, ``lambda_h > 0`` is learned per head (a fixed one on one axis
    is ALiBi, Press et al. 2022, arXiv:2108.12409). Heads start from far- to near-sighted.

    Shapes: nothing to ``(H, P, P)``.
    """

    distances: Tensor

    def __init__(self, rows: int, columns: int, heads: int) -> None:
        super().__init__()
        positions = torch.cartesian_prod(torch.arange(float(rows)), torch.arange(float(columns)))  # (P, 2)
        self.register_buffer("distances", torch.cdist(positions, positions))  # (P, P)
        self.raw = nn.Parameter(torch.linspace(-3.0, 0.0, heads))

    def forward(self) -> Tensor:
        return -nn.functional.softplus(self.raw)[:, None, None] * self.distances  # (H, P, P)


class SelfAttention(nn.Module):
    """Multi-head scaled dot-product self-attention (Vaswani et al. 2017, arXiv:1706.03762, eq. 1).

    Shapes: ``(B, P, D)`` to ``(B, P, D)``.
    """

    def __init__(self, width: int, heads: int, decay: DistanceDecay | None = None) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.project = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.decay = decay

    def forward(self, x: Tensor) -> Tensor:
        rows, patches, width = x.shape
        split = self.project(x).reshape(rows, patches, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, H, P, D/H)
        scores = q @ k.transpose(-1, -2) * self.scale  # (B, H, P, P)
        if self.decay is not None:
            scores = scores + self.decay()
        mixed = scores.softmax(-1) @ v  # (B, H, P, D/H)
        out: Tensor = self.merge(mixed.transpose(1, 2).reshape(rows, patches, width))
        return out


class EncoderLayer(nn.Module):
    """Pre-norm attention and feed-forward, each with a skip connection. ``(B, P, D)`` to ``(B, P, D)``.

    While learning, a part is passed by for some pictures (stochastic depth, Huang et al. 2016, arXiv:1603.09382).
    """

    def __init__(self, config: PatchAttentionConfig, decay: DistanceDecay | None) -> None:
        super().__init__()
        width, hidden = config.width, config.width * config.expansion
        self.skip_rate = config.skip_rate
        self.attend = nn.Sequential(nn.LayerNorm(width), SelfAttention(width, config.heads, decay))
        self.think = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.dropout = nn.Dropout(config.dropout)

    def _add(self, x: Tensor, change: Tensor) -> Tensor:
        change = self.dropout(change)
        if self.training and self.skip_rate:
            kept = torch.rand(x.shape[0], 1, 1, device=x.device) >= self.skip_rate
            change = change * kept.to(change.dtype) / (1 - self.skip_rate)
        return x + change

    def forward(self, x: Tensor) -> Tensor:
        x = self._add(x, self.attend(x))
        return self._add(x, self.think(x))


class LinearStem(nn.Module):
    """One matrix over the pixels of a patch (Dosovitskiy et al. 2021, eq. 1). ``(B, C, H, W)`` to ``(B, P, D)``."""

    def __init__(self, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.side = patch
        self.embed = nn.Linear(channels * patch**2, width)

    def cut(self, x: Tensor) -> Tensor:
        """Pixels of each patch, row by row, ``(B, P, C * side * side)``."""
        rows, channels, height, width = x.shape
        side = self.side
        x = x.reshape(rows, channels, height // side, side, width // side, side)
        return x.permute(0, 2, 4, 1, 3, 5).reshape(rows, -1, channels * side * side)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.embed(self.cut(x))
        return out


class ConvolutionStem(nn.Module):
    """Two convolutions and pools make a patch's vector (Xiao et al. 2021, arXiv:2106.14881; Hassani et al. 2021).

    Each vector sees 10 x 10 pixels: its patch of 4 x 4 and what lies around. ``(B, C, H, W)`` to ``(B, P, D)``.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        first = [*convolution(channels, width // 2), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*first, *convolution(width // 2, width), nn.MaxPool2d(2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.features(x).flatten(2).transpose(1, 2)
        return out


def _stem(config: PatchAttentionConfig, channels: int) -> nn.Module:
    if config.stem == "linear":
        return LinearStem(channels, config.patch, config.width)
    if config.patch != 4:
        raise ValueError(f"a convolutional stem makes patches of 4 x 4, not of {config.patch} x {config.patch}")
    return ConvolutionStem(channels, config.width)


class PatchAttentionNet(nn.Module):
    """Self-attention over patches (Dosovitskiy et al. 2021, arXiv:2010.11929), read out by attention.

    Instead of a class token, one learned query per head weighs the patches (attention pooling, Lee et al. 2019,
    arXiv:1810.00825): the weights are what the answer was made of, and each head's sum to 1 over the patches.

    Shapes: pixels ``(B, C, H, W)`` uint8 to scores ``(B, K)`` and attention ``(B, heads, P)``.
    """

    def __init__(self, config: PatchAttentionConfig, assets: Assets, mean: float, std: float) -> None:
        super().__init__()
        self.config = config
        self.standardise = Standardise(mean, std)
        rows, columns = assets.height // config.patch, assets.width // config.patch
        self.stem = _stem(config, assets.channels)
        sizes = {"none": (), "patch": ((rows * columns,),), "axes": ((rows, 1), (1, columns))}[config.position]
        self.positions = nn.ParameterList(torch.randn(*size, config.width) * 0.02 for size in sizes)
        self.layers = nn.Sequential(
            *(
                EncoderLayer(config, DistanceDecay(rows, columns, config.heads) if config.is_decaying else None)
                for _ in range(config.layers)
            )
        )
        self.norm = nn.LayerNorm(config.width)
        self.query = nn.Linear(config.width, config.heads)
        self.classifier = nn.Linear(config.width, len(assets.classes))

    def position(self) -> Tensor | float:
        """Return what is added to the patches, ``(P, D)``, or 0."""
        total = sum(self.positions)
        return total.reshape(-1, self.config.width) if isinstance(total, Tensor) else 0.0

    def attend(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(self.layers(self.stem(self.standardise(pixels)) + self.position()))  # (B, P, D)
        attention = self.query(x).transpose(1, 2).softmax(-1)  # (B, H, P)
        rows, patches, width = x.shape
        values = x.reshape(rows, patches, self.config.heads, -1).transpose(1, 2)  # (B, H, P, D/H)
        pooled = (attention.unsqueeze(2) @ values).reshape(rows, width)  # (B, D)
        return self.classifier(pooled), attention

    def logits(self, pixels: Tensor) -> Tensor:
        return self.attend(pixels)[0]

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        logits, attention = self.attend(pixels)
        return {"scores": logits.softmax(-1), "attention": attention}
