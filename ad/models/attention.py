"""Causal attention: of one sequence, and across the parallel streams of a window."""

import torch
import torch.nn.functional as F
from torch import nn


def attend(
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
        mask = torch.ones(new, total, dtype=torch.bool, device=q.device).tril(total - new)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)


class CrossStreamAttention(nn.Module):
    """Attention of each of S streams of a window to every stream, in place of one mixed sequence.

    In a mixed sequence the tokens of all modalities compete in one softmax. Here each stream
    attends to each stream, itself included, through a softmax of its own, and a learned gate weighs
    the results, so that many tokens of one modality cannot crowd out few of another. Projections,
    norms and the MLP are shared: the gates are the only additional weights. Three streams of
    T tokens cost 9 T² products, as does a mixed sequence of 3 T tokens.
    """

    def __init__(self, streams: int, heads: int):
        super().__init__()
        # [reading stream, head, stream that is read]; equal weights at initialization.
        self.gates = nn.Parameter(torch.zeros(streams, heads, streams))

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dropout: float = 0.0
    ) -> torch.Tensor:
        """Return [B, H, Lq, D] as `attend` does; B is windows × S, a window's streams adjacent."""
        streams = len(self.gates)
        weights = self.gates.softmax(2).to(v.dtype)[..., None, None]  # [S, H, S, 1, 1]
        mixed = 0.0
        for read in range(streams):
            keys, values = (_repeat_stream(x, read, streams) for x in (k, v))
            out = attend(q, keys, values, dropout).unflatten(0, (-1, streams))
            mixed = mixed + weights[:, :, read] * out  # [windows, S, H, Lq, D]
        return mixed.flatten(0, 1)


def _repeat_stream(x: torch.Tensor, stream: int, streams: int) -> torch.Tensor:
    """Return `x` [B, H, L, D] with one stream in the place of each stream of its window."""
    one = x.unflatten(0, (-1, streams))[:, stream]
    return one.repeat_interleave(streams, dim=0)
