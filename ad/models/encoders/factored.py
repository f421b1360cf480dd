"""Factored embeddings: those of a cell's row and of its column are added.

A held-out goal shares its row with some train goals and its column with others, which lets the
model act on goals that it was not trained on.
"""

import operator
from functools import reduce

import numpy as np
import torch
from torch import nn

from ad.models.encoders.base import Encoder


class FactoredEncoder(Encoder):
    """An embedding table for each of `spec.observation_factors`; their vectors are added."""

    def __init__(self, spec, width: int):
        super().__init__()
        factors = spec.observation_factors
        indices = np.unravel_index(np.arange(spec.num_observations), factors)
        rows = [np.append(index, size) for index, size in zip(indices, factors, strict=True)]
        self.vectors = nn.ModuleList(nn.Embedding(size + 1, width) for size in factors)
        self.register_buffer("rows", torch.tensor(np.stack(rows)), persistent=False)  # [F, S + 1]

    def forward(self) -> torch.Tensor:
        """Return the vectors of all observations and of no observation, [S + 1, C]."""
        vectors = (table(rows) for table, rows in zip(self.vectors, self.rows, strict=True))
        return reduce(operator.add, vectors)
