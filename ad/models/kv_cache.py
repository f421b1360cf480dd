"""Keys and values of the tokens read so far, with which `Transformer.forward` decodes."""

from typing import Protocol

import torch


class Cache(Protocol):
    """The tokens that a transformer has read in N environments, `length` of at most `capacity`."""

    length: int
    capacity: int

    def reset(self) -> None:
        """Forget every token; the memory stays allocated."""

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order."""


class KVCache:
    """Keys and values of N environments: two [layers, N * streams, H, capacity, D] tensors.

    An environment has `streams` sequences, adjacent in the batch (`tokenizer.py`). Nothing is
    ever shifted: when the window is full, its owner calls `reset` and fills the cache again from
    the transitions that stay, since the keys of every layer depend on the dropped tokens.
    """

    def __init__(
        self,
        layers: int,
        num_envs: int,
        heads: int,
        capacity: int,
        head_dim: int,
        like: torch.Tensor,
        streams: int = 1,
    ):
        shape = (layers, num_envs * streams, heads, capacity, head_dim)
        self.keys = torch.empty(shape, dtype=like.dtype, device=like.device)
        self.values = torch.empty_like(self.keys)
        self.capacity, self.length, self.streams = capacity, 0, streams

    def append(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the new `keys` and `values` [N * streams, H, L, D] of a layer.

        Returns all keys and values of the layer, [N * streams, H, length + L, D] each. The new
        tokens count only after `advance`, when every layer has stored them.
        """
        stop = self.length + keys.shape[2]
        assert keys.shape == values.shape and stop <= self.capacity
        assert keys.shape[:2] == self.keys.shape[1:3] and keys.shape[3] == self.keys.shape[4]
        self.keys[layer, :, :, self.length : stop] = keys
        self.values[layer, :, :, self.length : stop] = values
        return self.keys[layer, :, :, :stop], self.values[layer, :, :, :stop]

    def mask(self, new: int) -> None:
        """Return None: each of the `new` tokens attends to all up to itself."""

    def advance(self, tokens: int) -> None:
        """Add `tokens` to the length."""
        self.length = self.length + tokens  # not in place: others may hold a tensor of lengths

    def reset(self) -> None:
        """Forget every token; the memory stays allocated."""
        self.length = 0

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order."""
        self.keys, self.values = (
            x.unflatten(1, (-1, self.streams)).index_select(1, envs).flatten(1, 2)
            for x in (self.keys, self.values)
        )


class EpisodeCache(KVCache):
    """Keys and values of N environments whose episodes begin and end at different times.

    Each environment has one sequence. Each step adds `new` tokens to it. The first decision of an
    episode has only `first` of them, which are the last ones: the `extra` = new - first before them
    are padding, to which no token of the episode attends. `length`, int64 [N, 1], counts the tokens
    of an episode, so that it is -extra before the first step. The argument `capacity` is the number
    of tokens of the longest episode; the slots of the padding are added to it.
    """

    def __init__(
        self,
        layers: int,
        num_envs: int,
        heads: int,
        capacity: int,
        head_dim: int,
        like: torch.Tensor,
        first: int,
        new: int,
    ):
        self.new, self.extra = new, new - first
        super().__init__(layers, num_envs, heads, capacity + self.extra, head_dim, like)
        for kept in (self.keys, self.values):
            kept.zero_()  # a masked slot has weight 0, and 0 times NaN is NaN
        self.reset()

    def append(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the new `keys` and `values` [N, H, L, D] of a layer; return all, [N, H, S, D]."""
        slots = self._slots(keys.shape[2])
        envs, used = torch.arange(len(slots), device=slots.device)[:, None], int(slots.max()) + 1
        for kept, added in ((self.keys, keys), (self.values, values)):
            kept[layer][envs, :, slots] = added.transpose(1, 2).to(kept.dtype)
        return self.keys[layer, :, :, :used], self.values[layer, :, :, :used]

    def mask(self, new: int) -> torch.Tensor:
        """Return which slots each of the `new` tokens attends to, bool [N, 1, L, S]."""
        own = self._slots(new)[..., None]
        slots = torch.arange(int(own.max()) + 1, device=own.device)
        # Padding attends to itself alone.
        visible = ((slots >= self.extra) & (slots <= own)) | (slots == own)
        return visible[:, None]

    def reset(self) -> None:
        """Begin an episode in every environment."""
        self.length = torch.full((self.keys.shape[1], 1), -self.extra, device=self.keys.device)

    def begin(self, envs: torch.Tensor) -> None:
        """Begin an episode in the environments `envs`, bool [N]."""
        self.length = self.length.masked_fill(envs[:, None], -self.extra)

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order."""
        super().select(envs)
        self.length = self.length[envs]

    def _slots(self, new: int) -> torch.Tensor:
        """Return the slots of the `new` tokens of each environment, int64 [N, L]."""
        return self.length + self.extra + torch.arange(new, device=self.length.device)
