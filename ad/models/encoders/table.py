"""One learned vector an observation: knows nothing of what two cells have in common."""

import torch
from torch import nn

from ad.models.encoders.base import Encoder


class TableEncoder(Encoder):
    """A free table [S + 1, C]; what training never showed keeps its random vector."""

    def __init__(self, spec, width: int):
        super().__init__()
        self.vectors = nn.Embedding(spec.num_observations + 1, width)

    def forward(self) -> torch.Tensor:
        """The vectors of all observations and of none, [S + 1, C]."""
        return self.vectors.weight
