"""The networks of the image family: fully connected, convolutional, and (``patch_net``) attending over patches."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from models.image.schema import Assets
from models.image.train.layers import Standardise, convolution
from models.image.train.patch_net import PatchAttentionConfig, PatchAttentionNet


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseConfig:
    """Sizes of ``DenseNet``.

    Attributes:
        widths: Units of each hidden layer.
        dropout: After each hidden layer.
    """

    widths: tuple[int, ...] = (256, 128)
    dropout: float = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvolutionConfig:
    """Sizes of ``ConvolutionNet``.

    Attributes:
        widths: Channels of each stage; a stage is two 3x3 convolutions, and a 2x2 pool stands between stages.
        dropout: Before the classifier.
        is_pooled: Whether the pools are there; without them every stage works at the picture's full size.
        is_normalised: Whether batch normalisation follows each convolution.
    """

    widths: tuple[int, ...] = (32, 64, 128)
    dropout: float = 0.2
    is_pooled: bool = True
    is_normalised: bool = True


class DenseNet(nn.Module):
    """Fully-connected layers over all pixels at once: nothing tells the net which pixels are neighbours.

    Shapes: pixels ``(B, C, H, W)`` uint8 to scores ``(B, K)``, probabilities.
    """

    def __init__(self, config: DenseConfig, assets: Assets, mean: float, std: float) -> None:
        super().__init__()
        self.standardise = Standardise(mean, std)
        blocks: list[nn.Module] = []
        units = assets.channels * assets.height * assets.width
        for width in config.widths:
            blocks += [nn.Linear(units, width), nn.ReLU(), nn.Dropout(config.dropout)]
            units = width
        self.hidden = nn.Sequential(*blocks)
        self.classifier = nn.Linear(units, len(assets.classes))

    def logits(self, pixels: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.hidden(self.standardise(pixels).flatten(1)))  # (B, K)
        return out

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        return {"scores": self.logits(pixels).softmax(-1)}


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
            if stage and config.is_pooled:
                blocks.append(nn.MaxPool2d(2))
            for inputs in (channels, width):
                blocks += convolution(inputs, width, is_normalised=config.is_normalised)
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


ImageNet = DenseNet | ConvolutionNet | PatchAttentionNet
NETS: dict[type, Callable[..., ImageNet]] = {
    DenseConfig: DenseNet,
    ConvolutionConfig: ConvolutionNet,
    PatchAttentionConfig: PatchAttentionNet,
}
