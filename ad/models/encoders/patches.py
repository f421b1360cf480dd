"""One linear map of the vectors of all cells or patches of a picture, which know their places."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from ad.models.encoders.base import Encoder
from ad.models.encoders.pictures import Patches, is_picture
from envs.spaces import Array

INNER = 32  # width of the vector of a cell or patch


class FlatPatches(Encoder):
    """Vectors of cells with learned ones of their column and row, side by side in a linear map.

    The linear map has a weight for each coordinate at each place, 49 x 32 in a view of 7 x 7 cells:
    more parameters than a `BagOfWords`, which adds the vectors of all places.
    """

    supports = staticmethod(is_picture)

    def __init__(self, part: Array, width: int):
        super().__init__()
        self.patches = Patches(part, INNER)
        columns, rows = self.patches.grid  # a view of MiniGrid is [x, y, 3]
        self.column, self.row = nn.Embedding(columns, INNER), nn.Embedding(rows, INNER)
        self.out = nn.Linear(math.prod(self.patches.grid) * INNER, width)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the vectors [..., C] of `values` [..., H, W, D]."""
        vectors = self.patches(values.reshape(-1, *values.shape[-3:]))  # [N, *grid, INNER]
        vectors = F.gelu(vectors + self.column.weight[:, None] + self.row.weight)
        return self.out(vectors.flatten(1)).view(*values.shape[:-3], -1)
