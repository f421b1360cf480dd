"""A pre-norm causal transformer (Vaswani et al. 2017; Xiong et al. 2020) over token vectors.

The same `forward` trains and decodes: with a cache it continues after the tokens in the cache.
Positions are part of the tokens (`tokenizer.py`), or `rotate` turns queries and keys by them.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from ad.models.attention import CrossStreamAttention, attend
from ad.models.kv_cache import Cache, EpisodeCache, KVCache


class Attention(nn.Module):
    """Multi-head causal self-attention, within a sequence or across the `streams` of a window."""

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
        self.out = nn.Linear(width, width)
        self.across = CrossStreamAttention(streams, heads) if streams > 1 else None

    def forward(self, x: torch.Tensor, cache: KVCache | None, layer: int) -> torch.Tensor:
        """Attend from each of the positions of `x`, [B, L, C] -> [B, L, C]."""
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B, H, L, D]
        if self.rotate is not None:
            start = 0 if cache is None else cache.length
            q, k = self.rotate(q, start), self.rotate(k, start)
        mask = None
        if cache is not None:
            k, v = cache.append(layer, k, v)
            mask = cache.mask(length)
        dropout = self.dropout if self.training else 0.0
        if self.across is not None:
            assert mask is None
            mixed = self.across(q, k, v, dropout)
        else:
            mixed = attend(q, k, v, dropout, mask)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


def make_norm(norm: str, width: int) -> nn.Module:
    """Return the layer normalization that `model.norm` names: "pre", or "none" for the identity."""
    return nn.LayerNorm(width) if norm == "pre" else nn.Identity()


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
        self.norm_attention, self.norm_mlp = make_norm(norm, width), make_norm(norm, width)
        self.attention = Attention(width, heads, attention_dropout, rotate, streams)
        self.up, self.down = nn.Linear(width, feed_forward), nn.Linear(feed_forward, width)
        self.dropout = dropout

    def forward(self, x: torch.Tensor, cache: KVCache | None, layer: int) -> torch.Tensor:
        """Transform the residual stream, [B, L, C] -> [B, L, C]."""
        x = x + self._drop(self.attention(self.norm_attention(x), cache, layer))
        return x + self._drop(self.down(F.gelu(self.up(self.norm_mlp(x)))))

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
        self.blocks = nn.ModuleList(
            Block(width, heads, feed_forward, dropout, attention_dropout, rotate, streams, norm)
            for _ in range(layers)
        )
        self.norm = make_norm(norm, width)
        # Of the weights' dtype and device: without blocks and norm there are no weights.
        self.register_buffer("like", torch.empty(0), persistent=False)
        self._initialize(layers)

    def forward(
        self, tokens: torch.Tensor, cache: Cache | EpisodeCache | None = None
    ) -> torch.Tensor:
        """Return the hidden states of `tokens`, which follow those in `cache` and enter it."""
        x = tokens
        recompute = self.activation_checkpointing and self.training and cache is None
        for layer, block in enumerate(self.blocks):
            if recompute:
                x = checkpoint(block, x, cache, layer, use_reentrant=False)
            else:
                x = block(x, cache, layer)
        if cache is not None:
            cache.advance(tokens.shape[1])
        return self.norm(x)

    def new_cache(self, num_envs: int, capacity: int) -> Cache:
        """Return an empty cache for `num_envs` environments, `capacity` tokens in each stream.

        It is valid for the present weights, without dropout.
        """
        return KVCache(*self._cache_shape(num_envs, capacity), self.like, self.streams)

    def new_episode_cache(self, num_envs: int, capacity: int, first: int, new: int) -> EpisodeCache:
        """Return an empty `EpisodeCache`: of `capacity` tokens in each environment.

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
