"""One learned vector for each observation, without anything shared between observations."""

import torch
from torch import nn

from ad.models.encoders.base import TabularEncoder
from envs.spaces import Discrete


class TableEncoder(TabularEncoder):
    """An embedding table; observations without training data keep random vectors."""

    def __init__(self, part: Discrete, width: int):
        super().__init__()
        self.vectors = nn.Embedding(part.n + 1, width)

    def table(self) -> torch.Tensor:
        """Return the vectors of all values and of no observation, [n + 1, C]."""
        return self.vectors.weight
