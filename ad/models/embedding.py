"""Tokens as sums of rows of tables: the one operation between indices and vectors."""

import operator
from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F

Lookup = tuple[torch.Tensor, torch.Tensor]  # a table [S, C] and indices int64 [B or 1, T] into it


def embedding_sum(lookups: Sequence[Lookup]) -> torch.Tensor:
    """Return the sum of all `lookups`, [B, T, C]. Raises IndexError on a CPU for a bad index."""
    return reduce(operator.add, (F.embedding(index, table) for table, index in lookups))
