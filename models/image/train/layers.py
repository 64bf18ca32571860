"""Define the layers that image networks share."""

import torch
from torch import Tensor, nn


class Standardise(nn.Module):
    """Grey values 0..255 to zero mean and unit variance, with the training set's constants as buffers."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels.to(self.mean.dtype) - self.mean) / self.std


def convolution(inputs: int, outputs: int, *, is_normalised: bool = True) -> list[nn.Module]:
    """Return a 3 x 3 convolution that keeps the size, batch normalisation if wanted, and ReLU."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=not is_normalised)
    return [layer, *([nn.BatchNorm2d(outputs)] if is_normalised else []), nn.ReLU()]
