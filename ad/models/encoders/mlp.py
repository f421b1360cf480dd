"""A small network on the numbers of an array: states of control tasks, small images."""

import math

import torch
from torch import nn

from ad.models.encoders.base import Encoder
from envs.spaces import Array, Part

LARGEST_RANGE = 1e6  # of bounds that say how large the entries are
HIDDEN = 4  # hidden width as a multiple of the width of the vectors


class MLPEncoder(Encoder):
    """A linear map, GELU, and a second linear map of an array's entries in a row.

    Bounded entries are scaled to [-1, 1], all by the same factor.
    """

    def __init__(self, part: Array, width: int):
        super().__init__()
        low, high, self.middle, self.scale = part.low, part.high, 0.0, 1.0
        if low is not None and high is not None and 0 < high - low < LARGEST_RANGE:
            self.middle, self.scale = (high + low) / 2, 2 / (high - low)
        self.num_dims = len(part.shape)
        self.layers = nn.Sequential(
            nn.Linear(math.prod(part.shape), HIDDEN * width),
            nn.GELU(),
            nn.Linear(HIDDEN * width, width),
        )

    @staticmethod
    def supports(part: Part) -> bool:
        """Return whether `part` is an array."""
        return isinstance(part, Array)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the vectors [..., C] of the arrays `values` [..., *shape]."""
        flat = values.flatten(-self.num_dims) if self.num_dims else values[..., None]
        dtype = self.layers.get_parameter("0.weight").dtype
        return self.layers((flat.to(dtype) - self.middle) * self.scale)
