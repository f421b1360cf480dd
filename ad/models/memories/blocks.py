"""Residual blocks over token vectors: a layer that mixes the tokens of a window, then an MLP.

The mixing layer is attention in a transformer (Vaswani et al. 2017; pre-norm: Xiong et al. 2020), a
GRU in a recurrent network. The same `forward` trains and decodes: with a cache it continues after
the tokens in the cache. Every intermediate value that analyses read or change is the output of a
`HookPoint` (`points.py`).
"""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from ad.config.schema import ModelConfig
from ad.models.memories.base import Cache, Memory
from ad.models.points import HookPoint

if TYPE_CHECKING:
    from ad.models.memories.attention import Attention


class Norm(nn.LayerNorm):
    """Layer normalization, with its scale and its output at points."""

    def __init__(self, width: int):
        super().__init__(width)
        self.hook_scale, self.hook_normalized = HookPoint(), HookPoint()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalize the last dimension of `input` [B, L, C]."""
        if not self.hook_scale.is_hooked:
            return self.hook_normalized(super().forward(input))
        centered = input - input.mean(-1, keepdim=True)
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
    """A mixing layer and an MLP, each with a normalization before it and a residual connection.

    `mixer` maps [B, L, C] to [B, L, C] with a cache and the number of the layer in it; `name` is
    its name among the modules. With `norm` none both read the residual stream as it is.
    """

    attn: "Attention"  # of a transformer

    def __init__(self, mixer: nn.Module, name: str, config: ModelConfig):
        super().__init__()
        self.dropout, self.mixer = config.dropout, name
        self.hook_resid_pre = HookPoint()
        self.ln1 = make_norm(config.norm, config.width)
        self.add_module(name, mixer)
        self.hook_attn_out, self.hook_resid_mid = HookPoint(), HookPoint()
        self.ln2 = make_norm(config.norm, config.width)
        self.mlp = MLP(config.width, config.feed_forward)
        self.hook_mlp_out, self.hook_resid_post = HookPoint(), HookPoint()

    def forward(self, x: torch.Tensor, cache: Cache | None = None, layer: int = 0) -> torch.Tensor:
        """Transform the residual stream, [B, L, C] -> [B, L, C]."""
        x = self.hook_resid_pre(x)
        mixed = self.hook_attn_out(getattr(self, self.mixer)(self.ln1(x), cache, layer))
        x = self.hook_resid_mid(x + self._drop(mixed))
        return self.hook_resid_post(x + self._drop(self.hook_mlp_out(self.mlp(self.ln2(x)))))

    def _drop(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x, self.dropout, self.training)


class Blocks(Memory):
    """A memory of `blocks`, one after the other, and a last normalization.

    With `activation_checkpointing` a training step saves the inputs of the blocks alone, and the
    backward pass computes a block's other activations again (Chen et al. 2016).
    """

    like: torch.Tensor

    def __init__(self, blocks: Iterable[Block], config: ModelConfig, *tokens):
        super().__init__(config, *tokens)
        self.width, self.feed_forward = config.width, config.feed_forward
        self.hook_embed = HookPoint()
        self.blocks = nn.ModuleList(blocks)
        self.ln_final = make_norm(config.norm, config.width)
        # Of the weights' dtype and device: without blocks and norm there are no weights.
        self.register_buffer("like", torch.empty(0), persistent=False)
        self._initialize(config.layers)

    @property
    def in_turn(self) -> list[Block]:
        """The blocks in their order."""
        return [block for block in self.blocks if isinstance(block, Block)]

    def forward(self, tokens: torch.Tensor, cache: Cache | None = None) -> torch.Tensor:
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

    def _initialize(self, layers: int) -> None:
        # The additions to the residual stream shrink with depth (Radford et al. 2019, section 2.3).
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                is_residual = name.endswith(("out.weight", "down.weight"))
                scale = 1 / math.sqrt(2 * layers) if is_residual else 1.0
                nn.init.normal_(parameter, std=scale / math.sqrt(parameter.shape[1]))
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
