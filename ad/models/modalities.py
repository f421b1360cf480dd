"""Attention across modalities: streams of tokens that read each other, in place of one mixed line.

In a mixed sequence the tokens of all modalities compete in one softmax. Here each stream reads each
stream, itself included, through a softmax of its own, and a learned gate weighs what it found: the
rewards, of which few say anything, cannot be drowned by what there is more of. Projections, norms
and the perceptron are shared, so that beside the gates there is not a weight more. Three streams of
T tokens cost 9 T² products, as a mixed line of 3 T tokens does.
"""

import torch
from torch import nn

from ad.models.attention import attend


class AcrossStreams(nn.Module):
    """Of S streams of one window, which lie side by side in the batch: B = windows * S."""

    def __init__(self, streams: int, heads: int):
        super().__init__()
        # By the stream that reads, head, the stream that is read; equal shares to begin with.
        self.gates = nn.Parameter(torch.zeros(streams, heads, streams))

    def forward(self, q, k, v, dropout: float = 0.0) -> torch.Tensor:
        """As `attend`, [B, H, Lq, D], over the first so many places of all streams of a window."""
        streams = len(self.gates)
        shares = self.gates.softmax(2).to(v.dtype)[..., None, None]  # [S, H, S, 1, 1]
        mixed = 0.0
        for read in range(streams):
            keys, values = (_only(x, read, streams) for x in (k, v))
            found = attend(q, keys, values, dropout).unflatten(0, (-1, streams))
            mixed = mixed + shares[:, :, read] * found  # [windows, S, H, Lq, D]
        return mixed.flatten(0, 1)


def _only(x: torch.Tensor, stream: int, streams: int) -> torch.Tensor:
    """[B, H, L, D] with one stream in the place of each stream of its window."""
    one = x.unflatten(0, (-1, streams))[:, stream]
    return one.repeat_interleave(streams, dim=0)
