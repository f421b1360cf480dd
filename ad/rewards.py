"""How a reward becomes a vector, from its index among the known rewards; the last is "none"."""

import torch
import torch.nn.functional as F
from torch import nn


class RewardTable(nn.Embedding):
    """A free vector for each known reward: 0 says as much as 1."""

    def __init__(self, rewards: tuple[float, ...], width: int):
        super().__init__(len(rewards) + 1, width)


class RewardProjection(nn.Module):
    """The reward's value times a vector, and another vector added; "none" has one of its own."""

    def __init__(self, rewards: tuple[float, ...], width: int):
        super().__init__()
        self.linear, self.none = nn.Linear(1, width), nn.Embedding(1, width)
        nn.init.normal_(self.linear.weight, std=0.1)  # as a table begins
        nn.init.zeros_(self.linear.bias)
        self.register_buffer("values", torch.tensor(rewards)[:, None], persistent=False)

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        """[B, T] -> [B, T, C]."""
        return F.embedding(index, torch.cat([self.linear(self.values), self.none.weight]))


REWARDS = {"table": RewardTable, "projection": RewardProjection}
