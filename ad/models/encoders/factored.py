"""Factored embeddings: those of a cell's row and of its column are added.

A held-out goal shares its row with some train goals and its column with others, which lets the
model act on goals that it was not trained on.
"""

import operator
from functools import reduce

import numpy as np
import torch
from torch import nn

from ad.models.encoders.base import TabularEncoder
from envs.spaces import Discrete


class FactoredEncoder(TabularEncoder):
    """An embedding table for each of the `factors` of a part; their vectors are added."""

    rows: torch.Tensor

    def __init__(self, part: Discrete, width: int):
        super().__init__()
        indices = np.unravel_index(np.arange(part.n), part.factors)
        rows = [np.append(index, size) for index, size in zip(indices, part.factors, strict=True)]
        self.vectors = nn.ModuleList(nn.Embedding(size + 1, width) for size in part.factors)
        self.register_buffer("rows", torch.tensor(np.stack(rows)), persistent=False)  # [F, n + 1]

    def table(self) -> torch.Tensor:
        """Return the vectors of all values and of no observation, [n + 1, C]."""
        vectors = (table(rows) for table, rows in zip(self.vectors, self.rows, strict=True))
        return reduce(operator.add, vectors)
