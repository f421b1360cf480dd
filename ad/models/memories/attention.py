"""Causal multi-head attention, within a sequence or across the parallel streams of a window."""

import operator
from collections.abc import Callable
from functools import reduce

import torch
import torch.nn.functional as F
from torch import nn

from ad.models.memories.cache import KVCache
from ad.models.points import HookPoint


class Attention(nn.Module):
    """Causal self-attention with H heads; `rotate` turns queries and keys by their positions.

    With S > 1 `streams` each stream of a window attends to every stream, itself included, through a
    softmax of its own, and a learned gate weighs the results. In one mixed sequence the tokens of
    all modalities would compete in one softmax, and many tokens of one crowd out few of another.
    All other weights are shared by the streams. Three streams of T tokens cost 9 T² products, as
    does a mixed sequence of 3 T tokens.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float,
        rotate: Callable | None = None,
        streams: int = 1,
    ):
        super().__init__()
        self.heads, self.dropout, self.rotate = heads, dropout, rotate
        self.qkv = nn.Linear(width, 3 * width)
        self.hook_q, self.hook_k, self.hook_v = HookPoint(), HookPoint(), HookPoint()
        if rotate is not None:
            self.hook_rot_q, self.hook_rot_k = HookPoint(), HookPoint()
        self.hook_attn_scores, self.hook_pattern = HookPoint(), HookPoint()
        self.hook_z, self.hook_result = HookPoint(), HookPoint()
        self.out = nn.Linear(width, width)
        # [reading stream, head, stream that is read]; equal weights at initialization.
        self.gates = nn.Parameter(torch.zeros(streams, heads, streams)) if streams > 1 else None

    def forward(
        self, x: torch.Tensor, cache: KVCache | None = None, layer: int = 0
    ) -> torch.Tensor:
        """Attend from each of the positions of `x`, [B, L, C] -> [B, L, C]."""
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.unbind(2)  # [B, L, H, D] each
        q, k, v = self.hook_q(q), self.hook_k(k), self.hook_v(v)
        if self.rotate is not None:
            start = 0 if cache is None else cache.start
            q, k = (self.rotate(value.transpose(1, 2), start).transpose(1, 2) for value in (q, k))
            q, k = self.hook_rot_q(q), self.hook_rot_k(k)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # [B, H, L, D] each
        mask = None
        if cache is not None:
            k, v = cache.append(layer, k, v)
            q, mask = cache.together(q), cache.mask(length)
        z = self._mix(q, k, v, mask)
        z = self.hook_z((z if cache is None else cache.apart(z)).transpose(1, 2))  # [B, L, H, D]
        if not self.hook_result.is_hooked:
            return self.out(z.flatten(2))
        weight = self.out.weight.unflatten(1, (self.heads, -1))  # [C, H, D]
        result = self.hook_result(torch.einsum("blhd,chd->blhc", z, weight))
        return result.sum(2) + self.out.bias

    def _mix(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the values [B, H, Lq, D] as the queries weigh them."""
        dropout = self.dropout if self.training else 0.0
        points = self.hook_attn_scores, self.hook_pattern
        explicit = products_are_faster(q, k) or any(point.is_hooked for point in points)
        if self.gates is None:
            if explicit:
                return product_attention(q, k, v, dropout, mask, *points)
            return fused_attention(q, k, v, dropout, mask)
        assert mask is None
        streams, gates = len(self.gates), self.gates.softmax(2).to(v.dtype)
        if explicit:
            k, v = (_all_streams(value, streams) for value in (k, v))  # [B, H, S L, D]
            return product_attention(q, k, v, dropout, mask, *points, gates)

        def weighed(read: int) -> torch.Tensor:  # [B / S, S, H, Lq, D]
            keys, values = (_one_stream(value, read, streams) for value in (k, v))
            out = fused_attention(q, keys, values, dropout).unflatten(0, (-1, streams))
            return gates[:, :, read, None, None] * out

        return reduce(operator.add, map(weighed, range(streams))).flatten(0, 1)


def products_are_faster(q: torch.Tensor, k: torch.Tensor) -> bool:
    """Return whether two matrix products and a softmax are faster than the fused operation.

    They are for queries that are fewer than the keys in a cache, and for bfloat16 on a CPU (2.4
    times at 32 x 256 on a processor with avx512_bf16).
    """
    on_cpu = q.device.type == "cpu"
    return q.shape[2] < k.shape[2] or (on_cpu and q.dtype == torch.bfloat16)


def fused_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout: float = 0.0,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return causal attention [B, H, Lq, D] of queries that are the last Lq of Lk positions.

    q [B, H, Lq, D]; k, v [B, H, Lk, D]. Each position attends to all up to itself, unless `mask`,
    bool [B, 1, Lq, Lk], says to which.
    """
    new, total = q.shape[2], k.shape[2]
    if mask is None and new == total:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=new > 1)
    if mask is None and new > 1:
        mask = _causal(new, total, q.device)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)


def product_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout: float = 0.0,
    mask: torch.Tensor | None = None,
    scores_point: Callable = lambda scores: scores,
    pattern_point: Callable = lambda pattern: pattern,
    gates: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return what `fused_attention` does, with its scores and patterns [B, H, Lq, Lk] at points.

    With `gates` [S, H, S], which sum to 1, k and v have the positions of S streams, S Lk of them.
    """
    streams, new = 1 if gates is None else len(gates), q.shape[2]
    scores = (q * q.shape[3] ** -0.5) @ k.mT  # [B, H, Lq, S Lk]
    if mask is None and new > 1:
        mask = _causal(new, k.shape[2] // streams, q.device)
    if mask is not None:
        bias = torch.zeros(mask.shape, dtype=q.dtype, device=q.device)
        scores = scores + bias.masked_fill_(~mask, float("-inf")).tile(streams)
    scores = scores_point(scores)
    if gates is None:
        pattern = scores.softmax(-1)
    else:
        pattern = scores.unflatten(0, (-1, streams)).unflatten(-1, (streams, -1)).softmax(-1)
        pattern = (pattern * gates[:, :, None, :, None]).flatten(-2).flatten(0, 1)
    pattern = pattern_point(pattern)
    pattern = F.dropout(pattern, dropout) if dropout else pattern
    if new == 1:  # twice as fast with the layout of a cache
        return (v.mT @ pattern.mT).mT
    return pattern @ v


def _causal(new: int, total: int, device: torch.device) -> torch.Tensor:
    """Return which of `total` positions each of the last `new` ones attends to, bool."""
    return torch.ones(new, total, dtype=torch.bool, device=device).tril(total - new)


def _one_stream(x: torch.Tensor, stream: int, streams: int) -> torch.Tensor:
    """Return `x` [B, H, L, D] with one stream in the place of each stream of its window."""
    one = x.unflatten(0, (-1, streams))[:, stream]
    return one.repeat_interleave(streams, dim=0)


def _all_streams(x: torch.Tensor, streams: int) -> torch.Tensor:
    """Return [B, H, S L, D]: for each stream of a window the positions of all its streams."""
    together = x.unflatten(0, (-1, streams)).transpose(1, 2).flatten(2, 3)  # [B / S, H, S L, D]
    return together.repeat_interleave(streams, dim=0)
