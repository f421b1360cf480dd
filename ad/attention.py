"""Causal attention: one reference path, and faster ones where a CPU trains or decodes.

PyTorch's fused kernel is the reference and the default. On a CPU its backward pass in bfloat16
takes most of a training step, and a single query costs it nearly twice what two plain products
cost; plain products over blocks of queries take less than half of the time in training.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F

# Of queries: a block needs no keys behind its own end, which saves a quarter of the work.
BLOCKS = 2


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dropout: float = 0.0) -> torch.Tensor:
    """The last Lq of Lk positions attend to all up to themselves: [B, H, Lq, D]."""
    if q.device.type == "cpu" and q.shape[2] == 1:
        return _weigh(q * q.shape[3] ** -0.5, k, v, None, dropout)
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[2] == k.shape[2]:
        return attend_in_blocks(q, k, v, dropout)
    return attend_reference(q, k, v, dropout)


def attend_reference(q, k, v, dropout: float = 0.0) -> torch.Tensor:
    """`scaled_dot_product_attention` for queries that are the last Lq of Lk positions."""
    new, total = q.shape[2], k.shape[2]
    if new == total:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=new > 1)
    mask = None
    if new > 1:
        mask = torch.ones(new, total, dtype=torch.bool, device=q.device).tril(total - new)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)


def attend_in_blocks(q, k, v, dropout: float = 0.0, blocks: int = BLOCKS) -> torch.Tensor:
    """The same for Lq = Lk, as plain products over `blocks` blocks of queries."""
    length, scale = q.shape[2], q.shape[3] ** -0.5
    bias = torch.full((length, length), float("-inf"), dtype=q.dtype, device=q.device).triu(1)
    edges = [round(i * length / blocks) for i in range(blocks + 1)]
    parts = []
    for start, stop in pairwise(edges):
        part = q[:, :, start:stop] * scale
        parts.append(_weigh(part, k[:, :, :stop], v[:, :, :stop], bias[start:stop, :stop], dropout))
    return torch.cat(parts, dim=2)


def _weigh(q, k, v, bias: torch.Tensor | None, dropout: float) -> torch.Tensor:
    """softmax(q kᵀ + bias) v, for queries that are scaled already."""
    scores = q @ k.transpose(-1, -2)
    weights = (scores if bias is None else scores + bias).softmax(-1)
    return F.dropout(weights, dropout, dropout > 0) @ v
