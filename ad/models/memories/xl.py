"""A transformer that also attends to the segment before (Dai et al. 2019, arXiv 1901.02860).

A layer's queries are those of the present segment. Its keys and values are computed from the inputs
of the layer in the present segment and in the one before, which have no gradient (section 3.2). So
a token of layer n depends on what lies up to n segments back, and the cost of a decision stays
bounded. Positions: rotary ones tell how far two tokens are apart, across segments too. The paper
adds an embedding of the distance to the scores (section 3.3).
"""

import torch

from ad.config.schema import Experiment
from ad.errors import SettingError
from ad.models.memories.attention import Attention
from ad.models.memories.base import Cache
from ad.models.memories.cache import KVCache
from ad.models.memories.transformer import Transformer


class LayerInputs(Cache):
    """The inputs [B, L, C] of each layer in the present segment and, detached, in the one before.

    It carries the state of a forward pass over several segments, with gradients. None stands for
    no segment.
    """

    def __init__(self, layers: int):
        self.before: list[torch.Tensor | None] = [None] * layers
        self.present: list[torch.Tensor | None] = [None] * layers

    def next_segment(self) -> None:
        """Make the present segment the one before."""
        self.before, self.present = self.present, [None] * len(self.present)


class SegmentCache(KVCache):
    """The keys and values of the present segment and of the one before.

    `begin` is the slot of the first token of the present segment. `dropped` is the number of tokens
    of earlier segments.
    """

    begin = dropped = 0
    rotate = None

    @property
    def read(self) -> int:
        """The number of tokens read since the last reset."""
        return self.dropped + self.length

    def next_segment(self) -> None:
        """Drop the segment before the present one, and move the present one to its slots."""
        kept = slice(self.begin, self.length)
        keys, values = self.keys[..., kept].mT.clone(), self.values[..., kept].clone()
        if self.rotate is not None:  # each token by itself, to the number of its new slot
            keys = self.rotate(keys.reshape(-1, 1, 1, keys.shape[-1]), -self.begin).view_as(keys)
        self.dropped += self.begin
        self.begin = self.length = self.length - self.begin
        self.keys[..., : self.length], self.values[..., : self.length] = keys.mT, values

    def reset(self) -> None:
        """Forget every token."""
        super().reset()
        self.begin = self.dropped = 0

    def split(self, envs: torch.Tensor, branches: int, tokens: int) -> Cache:
        """Return a cache with copies of what was read for each of the `branches`."""
        return Cache.split(self, envs, branches, tokens)


class SegmentAttention(Attention):
    """Causal attention, also to the segment before."""

    def forward(
        self, x: torch.Tensor, cache: KVCache | LayerInputs | None = None, layer: int = 0
    ) -> torch.Tensor:
        """Attend from each of the positions of `x`, [B, L, C] -> [B, L, C]."""
        if not isinstance(cache, LayerInputs):
            return super().forward(x, cache, layer)
        before, cache.present[layer] = cache.before[layer], x.detach()
        if before is None:
            return super().forward(x)
        # The outputs of the segment before are not used: they cost less than a second arithmetic.
        return super().forward(torch.cat([before, x], 1))[:, before.shape[1] :]


class TransformerXL(Transformer):
    """Blocks of causal attention to two segments, and an MLP."""

    carries = True
    attention = SegmentAttention

    @classmethod
    def check(cls, config: Experiment) -> None:
        """Raise SettingError unless there are segments, and as a transformer does."""
        super().check(config)
        if config.training.segments == 1:
            text = "must be at least 2 with model.memory xl, which attends to the segment before"
            raise SettingError("training.segments", text)

    def new_cache(self, num_envs: int, capacity: int) -> SegmentCache:
        """Return an empty cache for `num_envs` environments, `capacity` tokens in each stream."""
        cache = SegmentCache(self._cache_shape(num_envs, capacity), self.like, self.streams)
        cache.rotate = self.rotate
        return cache

    def largest_activation(self, length: int) -> int:
        """Return the elements of the attention weights of two segments of `length` tokens."""
        return super().largest_activation(2 * length)

    def new_state(self, num_windows: int) -> LayerInputs:
        """Return what carries the inputs of the layers between the segments of a forward pass."""
        return LayerInputs(len(self.blocks))
