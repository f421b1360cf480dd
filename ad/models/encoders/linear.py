"""Linear maps of a picture of cells: of its one-hot vectors, and of the bare indices."""

import math

import torch
from torch import nn

from ad.models.encoders.base import Encoder
from ad.models.encoders.pictures import one_hot
from envs.minigrid.encoding import NUM_PLANES, has_cells
from envs.spaces import Array, Part


class OneHotLinear(Encoder):
    """A learned vector for each object, color and state at each place; those present are added."""

    supports = staticmethod(has_cells)

    def __init__(self, part: Array, width: int):
        super().__init__()
        rows, columns, _ = part.shape
        self.linear = nn.Linear(rows * columns * NUM_PLANES, width)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the vectors [..., C] of `values` [..., H, W, 3]."""
        return self.linear(one_hot(values, self.linear.weight.dtype).flatten(-3))


class IndexLinear(Encoder):
    """A linear map of an array's bare entries, for comparison.

    Where they are indices, the numbers say that an object is a multiple of another.
    """

    def __init__(self, part: Array, width: int):
        super().__init__()
        self.num_dims = len(part.shape)
        self.linear = nn.Linear(math.prod(part.shape), width)

    @staticmethod
    def supports(part: Part) -> bool:
        """Return whether `part` is an array with dimensions."""
        return isinstance(part, Array) and len(part.shape) > 0

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the vectors [..., C] of `values` [..., *shape]."""
        return self.linear(values.flatten(-self.num_dims).to(self.linear.weight.dtype))
