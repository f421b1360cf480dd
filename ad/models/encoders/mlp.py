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
        known = part.low is not None and part.high is not None
        is_bounded = known and 0 < part.high - part.low < LARGEST_RANGE
        self.middle = (part.high + part.low) / 2 if is_bounded else 0.0
        self.scale = 2 / (part.high - part.low) if is_bounded else 1.0
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
        return self.layers((flat.to(self.layers[0].weight.dtype) - self.middle) * self.scale)
