"""A small convolutional network for pictures of cells or of pixels."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from ad.models.encoders.base import Encoder
from ad.models.encoders.pictures import Patches, is_picture
from envs.spaces import Array

KERNEL = 3  # cells or patches on a side


class ConvolutionalEncoder(Encoder):
    """Two 3 x 3 convolutions over the cells or patches, then a linear map of what is left.

    A quarter of the width are channels, at least 8.
    """

    supports = staticmethod(is_picture)

    def __init__(self, part: Array, width: int):
        super().__init__()
        channels = max(width // 4, 8)
        self.patches = Patches(part, channels)
        # Without padding where the grid is large enough: it then shrinks by two in each layer.
        padding = 0 if min(self.patches.grid) > 2 * (KERNEL - 1) else KERNEL // 2
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels, channels, KERNEL, padding=padding) for _ in range(2)
        )
        shrunk = [size - 2 * (KERNEL - 1 - 2 * padding) for size in self.patches.grid]
        self.out = nn.Linear(channels * math.prod(shrunk), width)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the vectors [..., C] of `values` [..., H, W, D]."""
        maps = F.gelu(self.patches(values.reshape(-1, *values.shape[-3:])))
        maps = maps.movedim(-1, 1)  # [N, channels, H, W]
        for convolution in self.convolutions:
            maps = F.gelu(convolution(maps))
        return self.out(maps.flatten(1)).view(*values.shape[:-3], -1)
