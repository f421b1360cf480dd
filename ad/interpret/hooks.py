"""Named points inside a transformer, which can be read and written: TransformerLens's names.

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

Models without normalization have no `hook_scale`. With S streams B is windows × S; scores and
patterns are [B, H, L, S L], where a query's probabilities of all streams, times their gates, sum
to 1. With a cache L is the number of new tokens, and the last dimension of a pattern is that of all
tokens in the cache. With an `EpisodeCache` it is that of the slots of the longest episode, of which
the first ones may be padding.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from ad.errors import ConfigError
from ad.models.attention import CrossStreamAttention, attend
from ad.models.kv_cache import Cache, EpisodeCache
from ad.models.positions import Start
from ad.models.sequence_model import SequenceModel
from ad.models.tokenizer import Tokenizer
from ad.models.transformer import Attention, Block, Transformer
from envs.registry import did_you_mean


class Point(NamedTuple):
    """The place of a value: a point's name, and the number of its first token in the window.

    With an `EpisodeCache` the number is int64 [N, 1], negative for padding before an episode.
    """

    name: str
    start: Start


Write = Callable[[torch.Tensor, Point], torch.Tensor]  # a value -> its replacement
Values = dict[str, torch.Tensor]  # by the name of their point

BLOCK = (
    *("hook_resid_pre", "ln1.hook_scale", "ln1.hook_normalized"),
    *("attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_rot_q", "attn.hook_rot_k"),
    *("attn.hook_attn_scores", "attn.hook_pattern", "attn.hook_z", "attn.hook_result"),
    *("hook_attn_out", "hook_resid_mid", "ln2.hook_scale", "ln2.hook_normalized"),
    *("mlp.hook_pre", "mlp.hook_post", "hook_mlp_out", "hook_resid_post"),
)


def point_names(transformer: Transformer) -> list[str]:
    """Return the names of all points of `transformer`, in the order of computation."""
    blocks = transformer.blocks
    names = [f"blocks.{layer}.{name}" for layer in range(len(blocks)) for name in BLOCK]
    names = ["hook_embed", *names, "ln_final.hook_scale", "ln_final.hook_normalized"]
    left_out = [".hook_scale"] if isinstance(transformer.norm, nn.Identity) else []
    if not any(block.attention.rotate for block in blocks):
        left_out.append(".hook_rot_")
    return [name for name in names if not any(word in name for word in left_out)]


def model_problem(model: SequenceModel) -> str | None:
    """Return why no analysis can look inside `model`, None if one can."""
    if not model.transformer.blocks:
        return "needs a transformer with at least one block"
    if type(model.tokenizer).entries is Tokenizer.entries:
        return "needs a tokenizer that tells the entries of its tokens"
    return None


@contextmanager
def hooked(
    model: SequenceModel, read: tuple[str, ...] = (), write: Mapping[str, Write] | None = None
) -> Iterator[Values]:
    """Yield a dict that each forward pass of `model` in the block fills with the points in `read`.

    `read`: names of points, in which * stands for any characters. `write`: by such a name, the
    function of a value and its Point that returns the replacement. A point is read after it is
    written. The logits are those without hooks: to the last bit if neither scores, patterns,
    results nor scales are named, which attention and normalization otherwise do not compute.

    Raises ConfigError for a name that is no point. The model is a frozen one, and
    blocks do not nest.
    """
    transformer, write = model.transformer, dict(write or {})
    assert type(transformer) is Transformer and not model.training
    assert "forward" not in vars(transformer), "hooks do not nest"
    names = point_names(transformer)
    for pattern in (*read, *write):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(f"the model has no point {pattern!r}{did_you_mean(pattern, names)}")
    values: Values = {}
    transformer.forward = partial(_forward, transformer, read, write, values)
    try:
        yield values
    finally:
        del transformer.forward


def _forward(
    transformer: Transformer,
    read: tuple[str, ...],
    write: dict[str, Write],
    values: Values,
    tokens: torch.Tensor,
    cache: Cache | EpisodeCache | None = None,
) -> torch.Tensor:
    """Return what `Transformer.forward` does."""
    return _HookedPass(read, write, values, cache).transformer(transformer, tokens)


class _HookedPass:
    """One forward pass through the points: the arithmetic of `transformer.py`, step by step."""

    def __init__(self, read, write, values: Values, cache: Cache | EpisodeCache | None):
        self.read, self.write, self.values, self.cache = read, write, values, cache
        self.start = 0 if cache is None else cache.length

    def names(self, *names: str) -> bool:
        """Return whether one of the points is read or written."""
        return any(fnmatchcase(n, pattern) for n in names for pattern in (*self.read, *self.write))

    def at(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """Return the value at the point, as written, and keep it if it is read."""
        for pattern, function in self.write.items():
            if fnmatchcase(name, pattern):
                value = function(value, Point(name, self.start))
        if any(fnmatchcase(name, pattern) for pattern in self.read):
            self.values[name] = value
        return value

    def transformer(self, transformer: Transformer, tokens: torch.Tensor) -> torch.Tensor:
        """Compute `Transformer.forward`."""
        x = self.at("hook_embed", tokens)
        for layer, block in enumerate(transformer.blocks):
            x = self.block(block, x, layer)
        if self.cache is not None:
            self.cache.advance(tokens.shape[1])
        return self.normalize(transformer.norm, x, "ln_final")

    def block(self, block: Block, x: torch.Tensor, layer: int) -> torch.Tensor:
        """Compute `Block.forward`, without dropout."""
        name = f"blocks.{layer}"
        x = self.at(f"{name}.hook_resid_pre", x)
        normalized = self.normalize(block.norm_attention, x, f"{name}.ln1")
        out = self.attention(block.attention, normalized, layer)
        x = self.at(f"{name}.hook_resid_mid", x + self.at(f"{name}.hook_attn_out", out))
        normalized = self.normalize(block.norm_mlp, x, f"{name}.ln2")
        neurons = self.at(f"{name}.mlp.hook_pre", block.up(normalized))
        neurons = self.at(f"{name}.mlp.hook_post", F.gelu(neurons))
        out = self.at(f"{name}.hook_mlp_out", block.down(neurons))
        return self.at(f"{name}.hook_resid_post", x + out)

    def normalize(self, norm: nn.Module, x: torch.Tensor, name: str) -> torch.Tensor:
        """Compute a layer normalization."""
        if isinstance(norm, nn.LayerNorm) and self.names(f"{name}.hook_scale"):
            centered = x - x.mean(-1, keepdim=True)
            variance = centered.square().mean(-1, keepdim=True)
            scale = self.at(f"{name}.hook_scale", (variance + norm.eps).sqrt())
            x = centered / scale * norm.weight + norm.bias
        else:
            x = norm(x)
        return self.at(f"{name}.hook_normalized", x)

    def attention(self, attention: Attention, x: torch.Tensor, layer: int) -> torch.Tensor:
        """Compute `Attention.forward`, without dropout."""
        name, heads = f"blocks.{layer}.attn", attention.heads
        projected = attention.qkv(x).unflatten(2, (3, heads, -1)).unbind(2)  # [B, L, H, D] each
        points = zip(("q", "k", "v"), projected, strict=True)
        q, k, v = (self.at(f"{name}.hook_{letter}", value) for letter, value in points)
        if attention.rotate is not None:
            q, k = (
                self.at(f"{name}.hook_rot_{letter}", self.rotate(attention, value))
                for letter, value in (("q", q), ("k", k))
            )
        q, k, v = (value.transpose(1, 2) for value in (q, k, v))
        mask = None
        if self.cache is not None:
            k, v = self.cache.append(layer, k, v)
            mask = self.cache.mask(x.shape[1])
        if self.names(f"{name}.hook_attn_scores", f"{name}.hook_pattern"):
            z = self.explicit_mix(attention.across, q, k, v, mask, name)
        elif attention.across is not None:
            assert mask is None
            z = attention.across(q, k, v)
        else:
            z = attend(q, k, v, mask=mask)
        z = self.at(f"{name}.hook_z", z.transpose(1, 2))
        if not self.names(f"{name}.hook_result"):
            return attention.out(z.flatten(2))
        out = attention.out.weight.unflatten(1, (heads, -1))  # [C, H, D]
        result = self.at(f"{name}.hook_result", torch.einsum("blhd,chd->blhc", z, out))
        return result.sum(2) + attention.out.bias

    def rotate(self, attention: Attention, x: torch.Tensor) -> torch.Tensor:
        """Rotate queries or keys [B, L, H, D] by their positions."""
        return attention.rotate(x.transpose(1, 2), self.start).transpose(1, 2)

    def explicit_mix(
        self, across: CrossStreamAttention | None, q, k, v, mask: torch.Tensor | None, name: str
    ) -> torch.Tensor:
        """Return the outputs of heads [B, H, Lq, D] by their scores and patterns."""
        streams = 1 if across is None else len(across.gates)
        k, v = (_all_streams(value, streams) for value in (k, v))  # [B, H, S Lk, D]
        scores = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).unflatten(-1, (streams, -1))
        new, total = q.shape[2], scores.shape[-1]
        if mask is None:
            mask = torch.ones(new, total, dtype=torch.bool, device=q.device).tril(total - new)
        scores = scores.masked_fill(~mask.unsqueeze(-2), float("-inf")).flatten(-2)
        scores = self.at(f"{name}.hook_attn_scores", scores).unflatten(-1, (streams, -1))
        pattern = scores.softmax(-1)  # [B, H, Lq, S, Lk]
        if across is not None:
            gates = across.gates.softmax(2).to(v.dtype)[None, :, :, None, :, None]
            pattern = (pattern.unflatten(0, (-1, streams)) * gates).flatten(0, 1)
        return self.at(f"{name}.hook_pattern", pattern.flatten(-2)) @ v


def _all_streams(x: torch.Tensor, streams: int) -> torch.Tensor:
    """Return [B, H, S L, D]: for each stream of a window the positions of all its streams."""
    together = x.unflatten(0, (-1, streams)).transpose(1, 2).flatten(2, 3)  # [B / S, H, S L, D]
    return together.repeat_interleave(streams, dim=0)
