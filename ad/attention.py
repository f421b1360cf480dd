"""Causal attention: one reference path, and a faster one where a CPU trains in bfloat16.

PyTorch's fused kernel is the reference and the default. On a CPU in bfloat16 its backward pass
takes most of a training step; two matrix products and a softmax over blocks of queries take less
than half of that time.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F

BLOCKS = (
    2  # of queries: block i needs no keys behind its own end, so a quarter of the work is saved
)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dropout: float = 0.0) -> torch.Tensor:
    """The last Lq of Lk positions attend to all up to themselves: [B, H, Lq, D]."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[2] == k.shape[2] > 1:
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
        scores = (q[:, :, start:stop] * scale) @ k[:, :, :stop].transpose(-1, -2)
        weights = (scores + bias[start:stop, :stop]).softmax(-1)
        parts.append(F.dropout(weights, dropout, dropout > 0) @ v[:, :, :stop])
    return torch.cat(parts, dim=2)
