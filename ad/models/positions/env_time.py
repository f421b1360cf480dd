"""The time in the episode, from the world: says how much is left, not how much was learned."""

import torch
from torch import nn

from ad.models.embedding import Lookup


class EnvTime(nn.Module):
    """A free vector for each step of an episode; tokens of one transition share it."""

    rotate = None

    def __init__(self, spec, width: int, entries: int):
        super().__init__()
        self.vectors = nn.Embedding(spec.episode_length, width)

    def forward(self, window: dict[str, torch.Tensor], start: int) -> list[Lookup]:
        """By the time of each decision."""
        return [(self.vectors.weight, window["time"][:, 1:])]
