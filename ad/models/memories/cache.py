"""Keys and values of the tokens that a transformer has read, with which it decodes."""

from typing import Self

import torch

from ad.models.memories.base import Cache, Episodes

Shape = tuple[int, int, int, int, int]  # layers, environments, heads, capacity, width of a head


class KVCache(Cache):
    """Keys and values [layers, N * streams, H, D, capacity] of the tokens read so far.

    Each of N environments has `streams` sequences, adjacent in the batch (`tokenizer.py`). All
    environments add equally many tokens at a time, to the slots from `length` on. Each token
    attends to all tokens up to itself. A full window is read anew from the transitions that stay,
    since the keys of every layer depend on the dropped tokens.
    """

    def __init__(self, shape: Shape, like: torch.Tensor, streams: int = 1):
        layers, num_envs, heads, self.capacity, head_dim = shape
        # The products of one query are faster with adjacent slots than with adjacent dimensions.
        # Zeros: a masked slot has weight 0, and 0 times NaN is NaN.
        self.keys = like.new_zeros(layers, num_envs * streams, heads, head_dim, self.capacity)
        self.values, self.length, self.streams = torch.zeros_like(self.keys), 0, streams

    def append(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the new `keys` and `values` [N * streams, H, L, D] of a layer.

        Returns all keys and values of the layer, [N * streams, H, S, D] each for S used slots. The
        new tokens count only after `advance`, when every layer has stored them.
        """
        begin = self._slot()
        end = begin + keys.shape[2]
        assert end <= self.capacity, "the cache is full"
        self.keys[layer, ..., begin:end] = keys.mT
        self.values[layer, ..., begin:end] = values.mT
        if not self.length:
            return keys, values
        used = min(self.length + keys.shape[2], self.capacity)
        return self.keys[layer, ..., :used].mT, self.values[layer, ..., :used].mT

    def together(self, x: torch.Tensor) -> torch.Tensor:
        """Return queries [N * streams, H, L, D] as sequences that attend to those of `append`."""
        return x

    def apart(self, x: torch.Tensor) -> torch.Tensor:
        """Undo `together`."""
        return x

    def mask(self, new: int) -> torch.Tensor | None:
        """Return which slots each of the `new` tokens attends to, bool [N, 1, L, S].

        None stands for all tokens up to itself.
        """
        return None

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order; indices may repeat."""
        self.keys, self.values = (
            x.unflatten(1, (-1, self.streams)).index_select(1, envs).flatten(1, 2)
            for x in (self.keys, self.values)
        )

    def replace(self, envs: torch.Tensor, other: Self) -> None:
        """Keep of the environments `envs`, int64 [M], what `other` does, which read as much."""
        for x, y in ((self.keys, other.keys), (self.values, other.values)):
            x.unflatten(1, (-1, self.streams))[:, envs] = y.unflatten(1, (-1, self.streams))

    def split(self, envs: torch.Tensor, branches: int, tokens: int) -> Cache:
        """Return a cache with `branches` environments for each, which share what was read."""
        if self.streams > 1:
            return super().split(envs, branches, tokens)
        return BranchCache(self, branches, tokens)

    def _slot(self) -> int:
        """Return the slot of the next token."""
        return self.length


class BranchCache(KVCache):
    """A KVCache of B continuations of each of N environments, which share the past.

    The B environments of one past, adjacent among N * B, are one sequence for the attention: their
    queries are products with the keys of the past at once, and nobody copies these keys. A token
    attends to the past and to the earlier tokens of its own branch.
    """

    def __init__(self, past: KVCache, branches: int, tokens: int):
        self.length, self.streams, self.branches = past.length, 1, branches
        self.capacity = past.length + branches * tokens
        self.keys, self.values = (
            x.new_empty(*x.shape[:-1], self.capacity) for x in (past.keys, past.values)
        )
        self.keys[..., : past.length] = past.keys[..., : past.length]
        self.values[..., : past.length] = past.values[..., : past.length]
        # The number in its sequence and the branch of the token in each slot; -1: of all branches.
        self.number = torch.arange(past.length, device=self.keys.device)
        self.branch = torch.full_like(self.number, -1)

    def append(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the new `keys` and `values` [N * B, H, L, D] of a layer.

        Returns all keys and values of the layer, [N, H, S, D] each for S used slots.
        """
        begin = len(self.number)
        end = begin + self.branches * keys.shape[2]
        self.keys[layer, ..., begin:end] = self.together(keys).mT
        self.values[layer, ..., begin:end] = self.together(values).mT
        return self.keys[layer, ..., :end].mT, self.values[layer, ..., :end].mT

    def mask(self, new: int) -> torch.Tensor:
        """Return which slots each of the B * `new` tokens attends to, bool [1, 1, B L, S]."""
        number, branch = self._new(new)
        numbers, branches = torch.cat([self.number, number]), torch.cat([self.branch, branch])
        own = (branches < 0) | (branches == branch[:, None])
        return (own & (numbers <= number[:, None]))[None, None]

    def advance(self, tokens: int) -> None:
        """Add `tokens` of each branch to the length."""
        number, branch = self._new(tokens)
        self.number = torch.cat([self.number, number])
        self.branch = torch.cat([self.branch, branch])
        super().advance(tokens)

    def select(self, envs: torch.Tensor) -> None:
        """Raise NotImplementedError: the branches of an environment stay together."""
        raise NotImplementedError

    def replace(self, envs: torch.Tensor, other: Cache) -> None:
        """Raise NotImplementedError: the branches of an environment share their past."""
        raise NotImplementedError

    def together(self, x: torch.Tensor) -> torch.Tensor:
        """Return [N * B, H, L, D] as [N, H, B * L, D]."""
        return x.unflatten(0, (-1, self.branches)).transpose(1, 2).flatten(2, 3)

    def apart(self, x: torch.Tensor) -> torch.Tensor:
        """Return [N, H, B * L, D] as [N * B, H, L, D]."""
        return x.unflatten(2, (self.branches, -1)).transpose(1, 2).flatten(0, 1)

    def _new(self, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the numbers and the branches of the next `tokens` tokens of all, int64 [B * L]."""
        each = torch.arange(tokens, device=self.number.device) + self.length
        branch = torch.arange(self.branches, device=each.device)
        return each.repeat(self.branches), branch.repeat_interleave(tokens)


class EpisodeCache(Episodes, KVCache):
    """A KVCache of environments whose episodes begin and end at different times.

    A token attends to the tokens of its episode, which has at most `capacity` tokens: new tokens
    overwrite the oldest ones.
    """

    def __init__(self, shape: Shape, like: torch.Tensor, first: int, new: int):
        layers, num_envs, heads, capacity, head_dim = shape
        Episodes.__init__(self, num_envs, first, new, like.device)
        steps = -(-(capacity + self.extra) // new)
        KVCache.__init__(self, (layers, num_envs, heads, steps * new, head_dim), like)

    def mask(self, new: int) -> torch.Tensor:
        """Return which slots each of the `new` tokens attends to, bool [N, 1, L, S]."""
        newest = self.length + new - 1
        slots = torch.arange(min(newest + 1, self.capacity), device=self.begins.device)
        number = newest - (newest - slots) % self.capacity  # of the token in each slot, [S]
        own = torch.arange(self.length, newest + 1, device=slots.device)[:, None]  # [L, 1]
        present = (number >= self.begins)[:, None] & (number <= own)
        return (present | (number == own))[:, None]  # padding attends to itself alone

    def _slot(self) -> int:
        """Return the slot of the next token."""
        return self.length % self.capacity
