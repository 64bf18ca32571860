"""The networks of the image family: a convolutional net with batch normalisation, and attention over patches."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.image.schema import Assets


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvolutionConfig:
    """Sizes of ``ConvolutionNet``.

    Attributes:
        widths: Channels of each stage; a stage is two 3x3 convolutions, and a 2x2 pool stands between stages.
        dropout: Before the classifier.
    """

    widths: tuple[int, ...] = (32, 64, 128)
    dropout: float = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchAttentionConfig:
    """Sizes of ``PatchAttentionNet``.

    Attributes:
        patch: Side of a patch in pixels.
        width: Channels of a patch.
        layers: Encoder layers.
        heads: Attention heads.
        expansion: Hidden units of the feed-forward part per channel.
        dropout: After attention and feed-forward.
    """

    patch: int = 4
    width: int = 96
    layers: int = 4
    heads: int = 4
    expansion: int = 2
    dropout: float = 0.1


class Standardise(nn.Module):
    """Grey values 0..255 to zero mean and unit variance, with the training set's constants as buffers."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels.float() - self.mean) / self.std


def _convolution(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


class ConvolutionNet(nn.Module):
    """Stages of conv-BN-ReLU with pooling, then the mean over the picture.

    Batch normalisation (Ioffe & Szegedy 2015, arXiv:1502.03167): in training each channel is normalised with the
    batch's mean and variance; at test time with the running averages, which export freezes into the convolutions.

    Shapes: pixels ``(B, C, H, W)`` uint8 to scores ``(B, K)``, probabilities.
    """

    def __init__(self, config: ConvolutionConfig, assets: Assets, mean: float, std: float) -> None:
        super().__init__()
        self.standardise = Standardise(mean, std)
        blocks: list[nn.Module] = []
        channels = assets.channels
        for stage, width in enumerate(config.widths):
            if stage:
                blocks.append(nn.MaxPool2d(2))
            blocks += _convolution(channels, width) + _convolution(width, width)
            channels = width
        self.features = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(channels, len(assets.classes))

    def logits(self, pixels: Tensor) -> Tensor:
        x = self.features(self.standardise(pixels))  # (B, C', H/4, W/4)
        out: Tensor = self.classifier(self.dropout(x.mean((2, 3))))  # (B, K)
        return out

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        return {"scores": self.logits(pixels).softmax(-1)}


class SelfAttention(nn.Module):
    """Multi-head scaled dot-product self-attention (Vaswani et al. 2017, arXiv:1706.03762, eq. 1).

    Shapes: ``(B, P, D)`` to ``(B, P, D)``.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.project = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        rows, patches, width = x.shape
        split = self.project(x).reshape(rows, patches, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, H, P, D/H)
        weights = (q @ k.transpose(-1, -2) * self.scale).softmax(-1)  # (B, H, P, P)
        out: Tensor = self.merge((weights @ v).transpose(1, 2).reshape(rows, patches, width))
        return out


class EncoderLayer(nn.Module):
    """Pre-norm attention and feed-forward, each with a skip connection. ``(B, P, D)`` to ``(B, P, D)``."""

    def __init__(self, config: PatchAttentionConfig) -> None:
        super().__init__()
        width, hidden = config.width, config.width * config.expansion
        self.attend = nn.Sequential(nn.LayerNorm(width), SelfAttention(width, config.heads))
        self.think = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attend(x))
        out: Tensor = x + self.dropout(self.think(x))
        return out


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
        patches = (assets.height // config.patch) * (assets.width // config.patch)
        self.embed = nn.Linear(assets.channels * config.patch**2, config.width)
        self.position = nn.Parameter(torch.randn(patches, config.width) * 0.02)
        self.layers = nn.Sequential(*(EncoderLayer(config) for _ in range(config.layers)))
        self.norm = nn.LayerNorm(config.width)
        self.query = nn.Linear(config.width, config.heads)
        self.classifier = nn.Linear(config.width, len(assets.classes))

    def patches(self, pixels: Tensor) -> Tensor:
        side = self.config.patch
        x: Tensor = self.standardise(pixels)
        rows, channels, height, width = x.shape
        x = x.reshape(rows, channels, height // side, side, width // side, side)
        return x.permute(0, 2, 4, 1, 3, 5).reshape(rows, -1, channels * side * side)  # (B, P, C*side*side)

    def attend(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(self.layers(self.embed(self.patches(pixels)) + self.position))  # (B, P, D)
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
