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

    def advance(self, tokens: int) -> None:
        """Add `tokens` to the length."""
        self.length += tokens

    def reset(self) -> None:
        """Forget every token; the memory stays allocated."""
        self.length = 0

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order."""
        self.keys, self.values = (
            x.unflatten(1, (-1, self.streams)).index_select(1, envs).flatten(1, 2)
            for x in (self.keys, self.values)
        )
