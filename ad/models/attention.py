"""Causal attention: one reference path, and faster ones where a CPU trains or decodes.

PyTorch's fused kernel is the reference and the default. On a CPU its backward pass in bfloat16
takes most of a training step, and a single query costs it nearly twice what two plain products
cost. `scripts/benchmark` measures the paths by shape and precision; `choose` follows its table.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from ad.models.dropout import keep_mask, keep_share
from ad.runtime.parallel import split_max

# Of queries in a block: it needs no keys behind its own end, which saves up to half of the work,
# while smaller products run further below the speed of large ones.
BLOCK = 128


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dropout: float = 0.0) -> torch.Tensor:
    """The last Lq of Lk positions attend to all up to themselves: [B, H, Lq, D]."""
    return choose(q, k.shape[2])(q, k, v, dropout)


def choose(q: torch.Tensor, total: int) -> Callable[..., torch.Tensor]:
    """The fastest path for queries [B, H, Lq, D] on `total` keys."""
    if q.device.type == "cpu" and q.shape[2] == 1:
        return attend_one
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[2] == total:
        return attend_in_blocks
    return attend_reference


def attend_reference(q, k, v, dropout: float = 0.0) -> torch.Tensor:
    """`scaled_dot_product_attention` for queries that are the last Lq of Lk positions."""
    new, total = q.shape[2], k.shape[2]
    if new == total:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=new > 1)
    mask = None
    if new > 1:
        mask = torch.ones(new, total, dtype=torch.bool, device=q.device).tril(total - new)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)


def attend_one(q, k, v, dropout: float = 0.0) -> torch.Tensor:
    """The same for Lq = 1, as two products."""
    weights = (q * q.shape[3] ** -0.5 @ k.transpose(-1, -2)).softmax(-1)
    return F.dropout(weights, dropout, dropout > 0) @ v


def attend_in_blocks(q, k, v, dropout: float = 0.0) -> torch.Tensor:
    """The same for Lq = Lk, as plain products over blocks of queries."""
    return _Blocks.apply(q, k, v, dropout)


class _Blocks(torch.autograd.Function):
    """`attend_in_blocks` with a backward pass of its own: autograd's copies every slice twice."""

    @staticmethod
    def forward(ctx, q, k, v, dropout):
        ctx.shape, ctx.dropout = q.shape, dropout
        q, k, v = (x.reshape(-1, *x.shape[2:]) for x in (q, k, v))  # [B H, L, D]
        length, scale = q.shape[1], q.shape[2] ** -0.5
        bias = torch.full((length, length), float("-inf"), dtype=q.dtype).triu(1)
        out, saved = torch.empty_like(q), []
        for start, stop in split_max(length, BLOCK):
            scores = torch.baddbmm(
                bias[start:stop, :stop],
                q[:, start:stop],
                k[:, :stop].transpose(1, 2),
                alpha=scale,
            )
            weights = scores.softmax(-1)
            saved.append(weights)
            if dropout:
                saved.append(keep_mask(weights, dropout))
                weights = weights * saved[-1]
            out[:, start:stop] = weights @ v[:, :stop]
        if dropout:
            out /= keep_share(dropout)
        ctx.save_for_backward(q, k, v, *saved)
        return out.view(ctx.shape)

    @staticmethod
    def backward(ctx, gradient):
        q, k, v, *saved = ctx.saved_tensors
        gradient = gradient.reshape(q.shape)
        if ctx.dropout:
            gradient = gradient / keep_share(ctx.dropout)
        dq, dk, dv = (torch.zeros_like(x) for x in (q, k, v))
        for start, stop in reversed(split_max(q.shape[1], BLOCK)):
            mask = saved.pop() if ctx.dropout else None
            weights = used = saved.pop()
            mine = gradient[:, start:stop]
            d_weights = mine @ v[:, :stop].transpose(1, 2)
            if mask is not None:
                used = weights * mask
                d_weights *= mask
            d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype)
            dq[:, start:stop] = d_scores @ k[:, :stop]
            dk[:, :stop] += d_scores.transpose(1, 2) @ q[:, start:stop]
            dv[:, :stop] += used.transpose(1, 2) @ mine
        scale = q.shape[2] ** -0.5
        return (*(x.view(ctx.shape) for x in (dq.mul_(scale), dk.mul_(scale), dv)), None)


PATHS = {path.__name__: path for path in (attend_reference, attend_in_blocks)}
