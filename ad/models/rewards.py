"""Reward embeddings: a vector for each of R reward values and, last, for "no reward".

A reward embedding is built as `Reward(rewards, width)` and is called without arguments: [R + 1, C].
"""

import torch
from torch import nn


class RewardTable(nn.Embedding):
    """An embedding table over the reward values of the histories."""

    def __init__(self, rewards: tuple[float, ...], width: int):
        super().__init__(len(rewards) + 1, width)

    def forward(self) -> torch.Tensor:
        """Return the vectors, [R + 1, C]."""
        return self.weight


class RewardProjection(nn.Module):
    """A linear map of the reward's value; "no reward" has a learned vector."""

    def __init__(self, rewards: tuple[float, ...], width: int):
        super().__init__()
        self.linear, self.none = nn.Linear(1, width), nn.Embedding(1, width)
        nn.init.normal_(self.linear.weight, std=0.1)  # as the tables are initialized
        nn.init.zeros_(self.linear.bias)
        self.register_buffer("values", torch.tensor(rewards)[:, None], persistent=False)

    def forward(self) -> torch.Tensor:
        """Return the vectors, [R + 1, C]."""
        return torch.cat([self.linear(self.values), self.none.weight])
