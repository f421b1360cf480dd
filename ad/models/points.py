"""Points of a memory of blocks: modules that return their input, for PyTorch's own forward hooks.

The name of such a module is TransformerLens's. In a `Transformer` with H heads:

    hook_embed                                    tokens, [B, L, C]
    blocks.0.hook_resid_pre                       residual stream before the block, [B, L, C]
    blocks.0.ln1.hook_scale, hook_normalized      what attention reads, [B, L, 1] and [B, L, C]
    blocks.0.attn.hook_q, hook_k, hook_v          [B, L, H, D]
    blocks.0.attn.hook_rot_q, hook_rot_k          after a rotation by position, if there is one
    blocks.0.attn.hook_attn_scores, hook_pattern  [B, H, L, L]; scores are -inf after the query
    blocks.0.attn.hook_z, hook_result             outputs of heads, [B, L, H, D] and [B, L, H, C]
    blocks.0.hook_attn_out, hook_resid_mid        [B, L, C]
    blocks.0.ln2.hook_scale, hook_normalized      what the MLP reads
    blocks.0.mlp.hook_pre, hook_post              neurons before and after the GELU, [B, L, F]
    blocks.0.hook_mlp_out, hook_resid_post        [B, L, C]
    ln_final.hook_scale, hook_normalized          what the head reads

In a block with a GRU, `hook_attn_out` is what the GRU writes, and `gru.hook_state` (of the minGRU
`min_gru.hook_state`), [B, L, C], its states after each token; the points of `attn` are missing.
Models without normalization have no `hook_scale`. Scores, patterns, results and scales are computed
only if the point has a hook, since fused operations skip them. With S streams B is windows × S;
scores and patterns are [B, H, L, S L], where a query's probabilities of all streams, times their
gates, sum to 1. With a cache L is the number of new tokens, and the last dimension of scores and
patterns is the number of tokens in the cache.
"""

import torch
from torch import nn


class HookPoint(nn.Module):
    """The identity. A forward hook reads its value, or returns another one in its place."""

    @property
    def is_hooked(self) -> bool:
        """Whether a forward hook is registered."""
        return bool(self._forward_hooks)

    def __call__(self, value: torch.Tensor) -> torch.Tensor:
        """Return `value` as its hooks leave it; a pass has eighty points, most without any."""
        return super().__call__(value) if self._forward_hooks else value

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Return `value`."""
        return value
