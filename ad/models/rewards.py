"""Embeddings of rewards and of returns to go.

A reward embedding has a vector for each reward, and one for "no reward", where the reward is NaN.
It is built as `Reward(spec, width)` and maps rewards [...] to vectors [..., C].
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ad.data.spec import Spec


class RewardTable(nn.Embedding):
    """An embedding table over the reward values of the histories; others take the nearest value."""

    between: torch.Tensor

    def __init__(self, spec: Spec, width: int):
        super().__init__(len(spec.rewards) + 1, width)
        values = np.array(spec.rewards)
        between = torch.tensor((values[1:] + values[:-1]) / 2)  # float64, to be exact
        self.register_buffer("between", between, persistent=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the vectors [..., C] of the rewards `input` [...]."""
        index = (input[..., None] > self.between).sum(-1)
        index = index.masked_fill(input.isnan(), self.num_embeddings - 1)
        return F.embedding(index, self.weight)


class RewardProjection(nn.Module):
    """A linear map of the reward's value, scaled to at most 1; "no reward" has a learned vector."""

    def __init__(self, spec: Spec, width: int):
        super().__init__()
        self.linear, self.none = nn.Linear(1, width), nn.Embedding(1, width)
        nn.init.normal_(self.linear.weight, std=0.1)  # as the tables are initialized
        nn.init.zeros_(self.linear.bias)
        self.scale = max(1.0, *map(abs, spec.reward_range))

    def forward(self, reward: torch.Tensor) -> torch.Tensor:
        """Return the vectors [..., C] of rewards [...]."""
        value = reward.nan_to_num().to(self.linear.weight.dtype) / self.scale
        vectors = self.linear(value[..., None])
        return torch.where(
            reward.isnan()[..., None], self.none.weight[0].to(vectors.dtype), vectors
        )


def table_or_projection(spec: Spec, width: int) -> RewardTable | RewardProjection:
    """Return a table, or a projection if the histories have more rewards than `spec` lists."""
    return (RewardTable if spec.rewards else RewardProjection)(spec, width)


class NoReward(nn.Embedding):
    """One learned vector in place of every reward: the model is not told any."""

    def __init__(self, spec: Spec, width: int):
        super().__init__(1, width)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the vector for each of the rewards `input` [...], [..., C]."""
        return self.weight[0].expand(*input.shape, -1)


class ReturnToGo(nn.Module):
    """A linear map of a return to go (Chen et al. 2021, section 3), scaled to at most 1."""

    def __init__(self, spec: Spec, width: int):
        super().__init__()
        self.linear = nn.Linear(1, width)
        self.scale = max(map(abs, spec.return_range)) or 1.0

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Return the vectors [..., C] of returns to go [..., 1]."""
        return self.linear(value / self.scale)
