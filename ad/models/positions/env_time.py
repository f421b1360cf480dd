"""The time in the episode, given by the environment."""

import torch
from torch import nn

from ad.models.embedding import Lookup


class EnvTime(nn.Module):
    """An embedding for each step of an episode, shared by the tokens of a transition."""

    rotate = None

    def __init__(self, spec, width: int, entries: int):
        super().__init__()
        self.vectors = nn.Embedding(spec.episode_length, width)

    def forward(self, window: dict[str, torch.Tensor], start: int) -> list[Lookup]:
        """Return the lookups by the time of each decision."""
        return [(self.vectors.weight, window["time"][:, 1:])]
