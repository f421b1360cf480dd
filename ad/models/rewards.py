"""How a reward becomes a vector: a table of all known ones and, last, of "none".

A `Reward(rewards, width)` is called without arguments for it: [R + 1, C].
"""

import torch
from torch import nn


class RewardTable(nn.Embedding):
    """A free vector for each known reward: 0 says as much as 1."""

    def __init__(self, rewards: tuple[float, ...], width: int):
        super().__init__(len(rewards) + 1, width)

    def forward(self) -> torch.Tensor:
        """[R + 1, C]."""
        return self.weight


class RewardProjection(nn.Module):
    """The reward's value times a vector, and another vector added; "none" has one of its own."""

    def __init__(self, rewards: tuple[float, ...], width: int):
        super().__init__()
        self.linear, self.none = nn.Linear(1, width), nn.Embedding(1, width)
        nn.init.normal_(self.linear.weight, std=0.1)  # as a table begins
        nn.init.zeros_(self.linear.bias)
        self.register_buffer("values", torch.tensor(rewards)[:, None], persistent=False)

    def forward(self) -> torch.Tensor:
        """[R + 1, C]."""
        return torch.cat([self.linear(self.values), self.none.weight])
