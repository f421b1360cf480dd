"""Tokens as sums of rows of tables: the one operation between indices and vectors.

These are plain look-ups, but where a CPU trains in bfloat16: there they are one operation forward
and one backward, in place of twelve tensors as large as the tokens.
"""

import operator
from collections.abc import Sequence
from functools import partial, reduce

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from torch.autograd.function import once_differentiable

from ad.models.kernels.training import trains_rough_on_cpu
from ad.runtime.parallel import LOOP, at_once, split_evenly

Lookup = tuple[torch.Tensor, torch.Tensor]  # a table [S, C]; which of its rows: [B or 1, T], int64
SHARES = 2  # of a backward pass, in threads: as many everywhere, for the same bits


def summed(lookups: Sequence[Lookup]) -> torch.Tensor:
    """The sum of all `lookups`, [B, T, C]. On a CPU IndexError if a table has no such row."""
    tables, indices = zip(*lookups, strict=True)
    if not trains_rough_on_cpu(tables[0]):
        return reduce(operator.add, (F.embedding(index, table) for table, index in lookups))
    sizes = torch.tensor([len(table) for table in tables])
    rows = torch.stack(torch.broadcast_tensors(*indices), dim=-1)  # [B, T, K]
    lowest, highest = rows.flatten(0, 1).aminmax(dim=0)
    if (lowest < 0).any() or (highest >= sizes).any():
        raise IndexError(f"rows {lowest.tolist()} to {highest.tolist()} of {sizes.tolist()}")
    return _Sum.apply(torch.cat(tables), rows + (sizes.cumsum(0) - sizes))


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, table, rows):
        ctx.rows, ctx.size = rows, len(table)
        return F.embedding_bag(rows.flatten(0, 1), table, mode="sum").unflatten(0, rows.shape[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        count, width = ctx.rows[..., 0].numel(), gradient.shape[-1]
        known = gradient.contiguous().view(count, width).numpy()
        rows = ctx.rows.view(count, -1).numpy()
        totals = np.zeros((SHARES, ctx.size, width), np.float32)
        parts = zip(split_evenly(count, SHARES), totals, strict=True)
        at_once([partial(_add_up, known, rows, *part, total) for part, total in parts])
        return torch.from_numpy(totals.sum(0)), None


@njit(**LOOP)
def _add_up(known, rows, start, stop, totals):
    """Add each of the rows `start` to `stop` of `known` [N, C] to those of `totals` [S, C].

    Which ones, `rows` [N, K] says.
    """
    for n in range(start, stop):
        for k in range(rows.shape[1]):
            row = rows[n, k]
            for c in range(known.shape[1]):
                totals[row, c] += known[n, c]
