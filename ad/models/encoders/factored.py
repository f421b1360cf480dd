"""The factors of an observation (a cell's row and column) embedded apart and summed.

A goal in a cell of its own still shares its row with some train goals and its column with others,
which is what lets the model act on goals it has never seen.
"""

import operator
from functools import reduce

import numpy as np
import torch
from torch import nn

from ad.models.encoders.base import Encoder


class FactoredEncoder(Encoder):
    """A table for each factor of `spec.observation_factors`; their sum is the vector."""

    def __init__(self, spec, width: int):
        super().__init__()
        factors = spec.observation_factors
        indices = np.unravel_index(np.arange(spec.num_observations), factors)
        rows = [np.append(index, size) for index, size in zip(indices, factors, strict=True)]
        self.vectors = nn.ModuleList(nn.Embedding(size + 1, width) for size in factors)
        self.register_buffer("rows", torch.tensor(np.stack(rows)), persistent=False)  # [F, S + 1]

    def forward(self) -> torch.Tensor:
        """The vectors of all observations and of none, [S + 1, C]."""
        found = (table(rows) for table, rows in zip(self.vectors, self.rows, strict=True))
        return reduce(operator.add, found)
