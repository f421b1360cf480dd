"""The time in the episode, given by the environment."""

import torch
import torch.nn.functional as F
from torch import nn

from ad.models.positions import Start


class EnvTime(nn.Module):
    """An embedding for each step of an episode, shared by the tokens of a transition."""

    rotate, term = None, "time"

    def __init__(self, spec, width: int, entries: int):
        super().__init__()
        self.vectors = nn.Embedding(spec.episode_length, width)

    def forward(self, window: dict[str, torch.Tensor], start: Start) -> list[torch.Tensor]:
        """Return the vectors of the time of each decision, [B, T, C]."""
        return [F.embedding(window["time"][:, 1:], self.vectors.weight)]
