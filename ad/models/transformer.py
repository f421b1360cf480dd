"""A pre-norm causal transformer (Vaswani et al. 2017; Xiong et al. 2020) that knows no world.

The same `forward` trains and decodes: with a cache it continues behind the tokens that the cache
holds. Tokens bring their positions (`tokenizer.py`), or `rotate` turns queries and keys by them.
On a CPU a `Decoder` does the same without autograd, and `Passes` with gradients in bfloat16; tests
hold all three together.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from ad.models.attention import attend
from ad.models.dropout import dropout
from ad.models.kernels.inference import Decoder
from ad.models.kernels.training import Passes
from ad.models.kv_cache import KVCache
from ad.models.modalities import AcrossStreams

Memory = KVCache | Decoder


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
        self.across = AcrossStreams(streams, heads) if streams > 1 else None

    def forward(self, x: torch.Tensor, cache: KVCache | None, layer: int) -> torch.Tensor:
        """[B, L, C] -> [B, L, C]."""
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B, H, L, D]
        if self.rotate is not None:
            start = 0 if cache is None else cache.length
            q, k = self.rotate(q, start), self.rotate(k, start)
        if cache is not None:
            k, v = cache.append(layer, k, v)
        mix = attend if self.across is None else self.across
        mixed = mix(q, k, v, self.dropout if self.training else 0.0)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """Attention and a two-layer perceptron, each behind a normalisation, added to the stream."""

    def __init__(
        self,
        width: int,
        heads: int,
        feed_forward: int,
        dropout: float,
        attention_dropout: float,
        rotate: Callable | None = None,
        streams: int = 1,
    ):
        super().__init__()
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, attention_dropout, rotate, streams)
        self.up, self.down = nn.Linear(width, feed_forward), nn.Linear(feed_forward, width)
        self.dropout = dropout

    def forward(self, x: torch.Tensor, cache: KVCache | None, layer: int) -> torch.Tensor:
        """[B, L, C] -> [B, L, C]."""
        x = x + self._drop(self.attention(self.norm_attention(x), cache, layer))
        return x + self._drop(self.down(F.gelu(self.up(self.norm_mlp(x)))))

    def _drop(self, x: torch.Tensor) -> torch.Tensor:
        return dropout(x, self.dropout, self.training)


class Transformer(nn.Module):
    """Tokens [B, L, C] to hidden states [B, L, C]."""

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
    ):
        super().__init__()
        self.width, self.heads, self.streams = width, heads, streams
        self.blocks = nn.ModuleList(
            Block(width, heads, feed_forward, dropout, attention_dropout, rotate, streams)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.passes: Passes | None = Passes(self)  # None: the plain blocks do it all
        self._initialise(layers)

    @property
    def plain(self) -> bool:
        """Whether the compiled loops of a CPU know such blocks: `Decoder`, `Passes`."""
        even = self.width // self.heads % 2 == 0
        return self.blocks[0].attention.rotate is None and self.streams == 1 and even

    def forward(self, tokens: torch.Tensor, cache: Memory | None = None) -> torch.Tensor:
        """Hidden states of `tokens`, which follow those in `cache` and are added to it.

        With a cache only the last token's are promised, [B, 1, C]: a `Decoder` makes no others.
        """
        if isinstance(cache, Decoder):
            return cache.read(tokens)
        if cache is None and self.passes is not None and self.passes.serve(tokens):
            return self.passes(tokens, self.training)
        x = tokens
        for layer, block in enumerate(self.blocks):
            x = block(x, cache, layer)
        if cache is not None:
            cache.advance(tokens.shape[1])
        return self.norm(x)

    def new_cache(self, lanes: int, capacity: int) -> Memory:
        """An empty cache for `lanes` lanes of at most `capacity` tokens in each stream.

        It serves these weights without dropout: whoever changes them needs another.
        """
        if Decoder.serves(self):
            return Decoder(self, lanes, capacity)
        head_width = self.width // self.heads
        like = self.norm.weight
        blocks, heads = len(self.blocks), self.heads
        return KVCache(blocks, lanes, heads, capacity, head_width, like, self.streams)

    def _initialise(self, layers: int) -> None:
        # The additions to the residual stream shrink with depth (Radford et al. 2019, section 2.3).
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                deep = name.endswith(("out.weight", "down.weight"))
                scale = 1 / math.sqrt(2 * layers) if deep else 1.0
                nn.init.normal_(parameter, std=scale / math.sqrt(parameter.shape[1]))
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
