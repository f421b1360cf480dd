"""One learned vector for each observation, without anything shared between observations."""

import torch
from torch import nn

from ad.models.encoders.base import Encoder


class TableEncoder(Encoder):
    """An embedding table [S + 1, C]; observations without training data keep random vectors."""

    def __init__(self, spec, width: int):
        super().__init__()
        self.vectors = nn.Embedding(spec.num_observations + 1, width)

    def forward(self) -> torch.Tensor:
        """Return the vectors of all observations and of no observation, [S + 1, C]."""
        return self.vectors.weight
