"""Keys and values of the tokens already seen: a new token costs one step and not a window."""

from contextlib import AbstractContextManager, nullcontext

import torch


class KVCache:
    """Room for `capacity` tokens of N lanes: two [layers, N, H, capacity, D] tensors.

    A lane may be several `streams` side by side; N is then their number in all lanes.

    Nothing is ever shifted: when the window is full its owner calls `reset` and fills the cache
    again from the part that stays, since every layer's keys depend on all that the dropped tokens
    told it.
    """

    def __init__(
        self,
        layers: int,
        lanes: int,
        heads: int,
        capacity: int,
        head_width: int,
        like: torch.Tensor,
        streams: int = 1,
    ):
        shape = (layers, lanes * streams, heads, capacity, head_width)
        self.keys = torch.empty(shape, dtype=like.dtype, device=like.device)
        self.values = torch.empty_like(self.keys)
        self.capacity, self.length, self.streams = capacity, 0, streams

    def append(self, layer: int, keys: torch.Tensor, values: torch.Tensor):
        """Store a layer's new `keys` and `values` [N, H, L, D]; all it has, [N, H, length + L, D].

        The new tokens count only after `advance`, when every layer has stored them.
        """
        stop = self.length + keys.shape[2]
        assert keys.shape == values.shape and stop <= self.capacity
        assert keys.shape[:2] == self.keys.shape[1:3] and keys.shape[3] == self.keys.shape[4]
        self.keys[layer, :, :, self.length : stop] = keys
        self.values[layer, :, :, self.length : stop] = values
        return self.keys[layer, :, :, :stop], self.values[layer, :, :, :stop]

    def advance(self, tokens: int) -> None:
        """Count `tokens` more as seen."""
        self.length += tokens

    def reset(self) -> None:
        """Forget everything; the memory stays."""
        self.length = 0

    def in_use(self) -> AbstractContextManager:
        """Around whatever reads with it: nothing to be done."""
        return nullcontext()

    def keep(self, lanes: torch.Tensor) -> None:
        """Go on with `lanes` alone, int64 [M], in this order."""
        self.keys, self.values = (self._only(lanes, x) for x in (self.keys, self.values))

    def _only(self, lanes: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(1, (-1, self.streams)).index_select(1, lanes).flatten(1, 2)
