"""A pre-norm causal transformer (Vaswani et al. 2017; Xiong et al. 2020) over token vectors.

The same `forward` trains and decodes: with a cache it continues after the tokens in the cache.
Positions are part of the tokens (`tokenizer.py`), or `rotate` turns queries and keys by them. Every
intermediate value that analyses read or change is the output of a `HookPoint` (`points.py`).
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from ad.models.attention import Attention
from ad.models.cache import EpisodeCache, KVCache
from ad.models.points import HookPoint


class Norm(nn.LayerNorm):
    """Layer normalization, with its scale and its output at points."""

    def __init__(self, width: int):
        super().__init__(width)
        self.hook_scale, self.hook_normalized = HookPoint(), HookPoint()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalize the last dimension of `x` [B, L, C]."""
        if not self.hook_scale.is_hooked:
            return self.hook_normalized(super().forward(x))
        centered = x - x.mean(-1, keepdim=True)
        variance = centered.square().mean(-1, keepdim=True)
        scale = self.hook_scale((variance + self.eps).sqrt())
        return self.hook_normalized(centered / scale * self.weight + self.bias)


class NoNorm(nn.Module):
    """The identity in place of a layer normalization."""

    def __init__(self):
        super().__init__()
        self.hook_normalized = HookPoint()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x`."""
        return self.hook_normalized(x)


def make_norm(norm: str, width: int) -> nn.Module:
    """Return the layer normalization that `model.norm` names: "pre", or "none" for the identity."""
    return Norm(width) if norm == "pre" else NoNorm()


class MLP(nn.Module):
    """Two linear maps with a GELU between them."""

    def __init__(self, width: int, feed_forward: int):
        super().__init__()
        self.up, self.down = nn.Linear(width, feed_forward), nn.Linear(feed_forward, width)
        self.hook_pre, self.hook_post = HookPoint(), HookPoint()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform each position of `x`, [B, L, C] -> [B, L, C]."""
        return self.down(self.hook_post(F.gelu(self.hook_pre(self.up(x)))))


class Block(nn.Module):
    """Attention and an MLP, each with a layer normalization before it and a residual connection.

    With `norm` none they read the residual stream as it is, whatever its size.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        feed_forward: int,
        dropout: float,
        attention_dropout: float,
        rotate: Callable | None = None,
        streams: int = 1,
        norm: str = "pre",
    ):
        super().__init__()
        self.dropout = dropout
        self.hook_resid_pre = HookPoint()
        self.ln1 = make_norm(norm, width)
        self.attn = Attention(width, heads, attention_dropout, rotate, streams)
        self.hook_attn_out, self.hook_resid_mid = HookPoint(), HookPoint()
        self.ln2 = make_norm(norm, width)
        self.mlp = MLP(width, feed_forward)
        self.hook_mlp_out, self.hook_resid_post = HookPoint(), HookPoint()

    def forward(
        self, x: torch.Tensor, cache: KVCache | None = None, layer: int = 0
    ) -> torch.Tensor:
        """Transform the residual stream, [B, L, C] -> [B, L, C]."""
        x = self.hook_resid_pre(x)
        attention = self.hook_attn_out(self.attn(self.ln1(x), cache, layer))
        x = self.hook_resid_mid(x + self._drop(attention))
        return self.hook_resid_post(x + self._drop(self.hook_mlp_out(self.mlp(self.ln2(x)))))

    def _drop(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x, self.dropout, self.training)


class Transformer(nn.Module):
    """Maps tokens [B, L, C] to hidden states [B, L, C].

    With `activation_checkpointing` a training step saves the inputs of the blocks alone, and the
    backward pass computes a block's other activations again (Chen et al. 2016).
    """

    activation_checkpointing = False

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        feed_forward: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        rotate: Callable | None = None,
        streams: int = 1,
        norm: str = "pre",
    ):
        super().__init__()
        self.width, self.heads, self.streams = width, heads, streams
        self.feed_forward = feed_forward
        self.hook_embed = HookPoint()
        self.blocks = nn.ModuleList(
            Block(width, heads, feed_forward, dropout, attention_dropout, rotate, streams, norm)
            for _ in range(layers)
        )
        self.ln_final = make_norm(norm, width)
        # Of the weights' dtype and device: without blocks and norm there are no weights.
        self.register_buffer("like", torch.empty(0), persistent=False)
        self._initialize(layers)

    def forward(self, tokens: torch.Tensor, cache: KVCache | None = None) -> torch.Tensor:
        """Return the hidden states of `tokens`, which follow those in `cache` and enter it."""
        x = self.hook_embed(tokens)
        recompute = self.activation_checkpointing and self.training and cache is None
        for layer, block in enumerate(self.blocks):
            if recompute:
                x = checkpoint(block, x, cache, layer, use_reentrant=False)
            else:
                x = block(x, cache, layer)
        if cache is not None:
            cache.advance(tokens.shape[1])
        return self.ln_final(x)

    def new_cache(self, num_envs: int, capacity: int) -> KVCache:
        """Return an empty cache for `num_envs` environments, `capacity` tokens in each stream.

        It is valid for the present weights, without dropout.
        """
        return KVCache(*self._cache_shape(num_envs, capacity), self.like, self.streams)

    def new_episode_cache(self, num_envs: int, capacity: int, first: int, new: int) -> EpisodeCache:
        """Return an empty `EpisodeCache` for episodes of at most `capacity` tokens.

        An episode's first decision has `first` tokens, a further one `new`.
        """
        return EpisodeCache(*self._cache_shape(num_envs, capacity), self.like, first, new)

    def _cache_shape(self, num_envs: int, capacity: int) -> tuple[int, int, int, int, int]:
        return len(self.blocks), num_envs, self.heads, capacity, self.width // self.heads

    def _initialize(self, layers: int) -> None:
        # The additions to the residual stream shrink with depth (Radford et al. 2019, section 2.3).
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                is_residual = name.endswith(("out.weight", "down.weight"))
                scale = 1 / math.sqrt(2 * layers) if is_residual else 1.0
                nn.init.normal_(parameter, std=scale / math.sqrt(parameter.shape[1]))
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
