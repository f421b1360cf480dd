"""Keys and values of the tokens that a transformer has read, with which it decodes."""

import torch


class KVCache:
    """Keys and values [layers, N * streams, H, D, capacity] of the tokens read so far.

    Each of N environments has `streams` sequences, adjacent in the batch (`tokenizer.py`). All
    environments add equally many tokens at a time, to the slots from `length` on. Each token
    attends to all tokens up to itself. When the window is full, its owner calls `reset` and fills
    the cache again from the transitions that stay, since the keys of every layer depend on the
    dropped tokens.
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
        # The products of one query are faster with adjacent slots than with adjacent dimensions.
        shape = (layers, num_envs * streams, heads, head_dim, capacity)
        # Zeros: a masked slot has weight 0, and 0 times NaN is NaN.
        self.keys = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.values = torch.zeros_like(self.keys)
        self.capacity, self.length, self.streams = capacity, 0, streams

    @property
    def start(self) -> int | torch.Tensor:
        """The number of the next token in its window."""
        return self.length

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

    def mask(self, new: int) -> torch.Tensor | None:
        """Return which slots each of the `new` tokens attends to, bool [N, 1, L, S].

        None stands for all tokens up to itself.
        """
        return None

    def advance(self, tokens: int) -> None:
        """Add `tokens` to the length."""
        self.length += tokens

    def reset(self) -> None:
        """Forget every token; the memory stays allocated."""
        self.length = 0

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order; indices may repeat."""
        self.keys, self.values = (
            x.unflatten(1, (-1, self.streams)).index_select(1, envs).flatten(1, 2)
            for x in (self.keys, self.values)
        )

    def _slot(self) -> int:
        """Return the slot of the next token."""
        return self.length


class EpisodeCache(KVCache):
    """A KVCache of environments whose episodes begin and end at different times.

    Each step adds `new` tokens to each environment. The first decision of an episode has only
    `first` of them, which are the last ones. The `extra` = new - first tokens before them are
    padding, to which no token of the episode attends. A token attends to the tokens of its episode,
    which has at most `capacity` tokens: new tokens overwrite the oldest ones. `begins` is the
    number of the first token of each environment's episode, int64 [N, 1].
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
        steps = -(-(capacity + self.extra) // new)
        super().__init__(layers, num_envs, heads, steps * new, head_dim, like)
        self.begins = torch.full((num_envs, 1), self.extra, device=like.device)

    @property
    def start(self) -> torch.Tensor:
        """The number of the next token in its episode, int64 [N, 1]; negative for padding."""
        return self.length - self.begins

    def mask(self, new: int) -> torch.Tensor:
        """Return which slots each of the `new` tokens attends to, bool [N, 1, L, S]."""
        newest = self.length + new - 1
        slots = torch.arange(min(newest + 1, self.capacity), device=self.begins.device)
        number = newest - (newest - slots) % self.capacity  # of the token in each slot, [S]
        own = torch.arange(self.length, newest + 1, device=slots.device)[:, None]  # [L, 1]
        present = (number >= self.begins)[:, None] & (number <= own)
        return (present | (number == own))[:, None]  # padding attends to itself alone

    def reset(self) -> None:
        """Begin an episode in every environment."""
        super().reset()
        self.begins = torch.full_like(self.begins, self.extra)

    def begin(self, envs: torch.Tensor) -> None:
        """Begin an episode in the environments `envs`, bool [N]."""
        if envs.all():
            self.reset()
        else:
            self.begins = self.begins.masked_fill(envs[:, None], self.length + self.extra)

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order; indices may repeat."""
        super().select(envs)
        self.begins = self.begins[envs]

    def _slot(self) -> int:
        """Return the slot of the next token."""
        return self.length % self.capacity
