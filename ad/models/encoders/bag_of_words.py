"""A bag of the words of a picture of cells, each of which knows its place."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from ad.models.encoders.base import Encoder
from ad.models.encoders.pictures import Patches, place_sinusoids
from envs.minigrid.encoding import has_cells
from envs.spaces import Array


class BagOfWords(Encoder):
    """The sum over all cells of a small network of the cell's words and its place.

    Object, color and state have the same vectors in every cell (Chevalier-Boisvert et al. 2019,
    BabyAI, section 4). The place is a fixed sinusoid of row and column. The GELU of a cell is what
    makes its place matter: a sum of words and places alone would not tell which word is where.
    """

    supports = staticmethod(has_cells)

    def __init__(self, part: Array, width: int):
        super().__init__()
        self.words = Patches(part, width)
        self.register_buffer("places", place_sinusoids(*part.shape[:2], width), persistent=False)
        self.cell, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.scale = 1 / math.sqrt(math.prod(part.shape[:2]))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the vectors [..., C] of `values` [..., H, W, 3]."""
        words = self.words(values.reshape(-1, *values.shape[-3:])) + self.places
        total = F.gelu(self.cell(words)).sum((1, 2)) * self.scale  # [N, C]
        return self.out(total).view(*values.shape[:-3], -1)
