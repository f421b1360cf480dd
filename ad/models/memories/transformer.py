"""The causal transformer: its window is the memory, and keys and values are its cache.

Positions are part of the tokens (`tokenizer.py`), or `rotate` turns queries and keys by them.
"""

from collections.abc import Callable
from typing import ClassVar

from ad.config.schema import Experiment, ModelConfig
from ad.errors import SettingError
from ad.models.memories.attention import Attention
from ad.models.memories.blocks import Block, Blocks
from ad.models.memories.cache import EpisodeCache, KVCache, Shape


class Transformer(Blocks):
    """Blocks of causal attention and an MLP."""

    unused: ClassVar[tuple[str, ...]] = ()
    reads_streams = rotates = True
    attention: ClassVar[type[Attention]] = Attention

    def __init__(self, config: ModelConfig, streams: int = 1, rotate: Callable | None = None):
        settings = config.width, config.heads, config.attention_dropout, rotate, streams
        attentions = (self.attention(*settings) for _ in range(config.layers))
        blocks = (Block(each, "attn", config) for each in attentions)
        super().__init__(blocks, config, streams, rotate)
        self.heads = config.heads

    @classmethod
    def check(cls, config: Experiment) -> None:
        """Raise SettingError unless the heads have a width, which for rotary positions is even."""
        super().check(config)
        width, heads = config.model.width, config.model.heads
        if width % heads:
            raise SettingError("model.heads", f"must divide model.width ({width}), not be {heads}")
        if config.model.position == "rotary" and width // heads % 2:
            text = f"must not be rotary with heads of width {width // heads}: "
            raise SettingError("model.position", f"{text}rotary needs an even one")

    def new_cache(self, num_envs: int, capacity: int) -> KVCache:
        """Return an empty cache for `num_envs` environments, `capacity` tokens in each stream."""
        return KVCache(self._cache_shape(num_envs, capacity), self.like, self.streams)

    def new_episode_cache(self, num_envs: int, capacity: int, first: int, new: int) -> EpisodeCache:
        """Return an empty cache for episodes of at most `capacity` tokens."""
        return EpisodeCache(self._cache_shape(num_envs, capacity), self.like, first, new)

    def largest_activation(self, length: int) -> int:
        """Return the elements of the attention weights of a window, or of its hidden layer."""
        return length * max(self.heads * length, self.feed_forward)

    def _cache_shape(self, num_envs: int, capacity: int) -> Shape:
        return len(self.blocks), num_envs, self.heads, capacity, self.width // self.heads
