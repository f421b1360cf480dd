"""What a policy of Stable-Baselines3 reads of pictures of cells and of missions."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from gymnasium import Space, spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from envs.minigrid.encoding import SIZES, WORDS, has_cells, has_words
from envs.spaces import Array


class OneHotCells(BaseFeaturesExtractor):
    """The one-hot vectors of cells and words, flattened; other parts of an observation as they are.

    For `policy_kwargs: {features_extractor_class: OneHotCells}`: histories then hold the three
    numbers of a cell, which take a seventh of the space of its one-hot vectors. Raises ValueError
    if the observations have no picture of cells.
    """

    def __init__(self, observation_space: Space):
        is_divided = isinstance(observation_space, spaces.Dict)
        parts = observation_space.spaces if is_divided else {"": observation_space}
        self.encodings = {name: _encoding(part) for name, part in parts.items()}
        if _one_hot not in self.encodings.values():
            raise ValueError(f"OneHotCells finds no picture of cells in {observation_space}")
        size = sum(
            self.encodings[name](torch.zeros(part.shape or spaces.flatdim(part))).numel()
            for name, part in parts.items()
        )
        super().__init__(observation_space, size)
        self.flatten = nn.Flatten()

    def forward(self, observation: torch.Tensor | dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the features, float32 [N, F], of what Stable-Baselines3 makes of observations."""
        parts = observation if isinstance(observation, dict) else {"": observation}
        features = [self.encodings[name](part) for name, part in parts.items()]
        return torch.cat([self.flatten(part.float()) for part in features], dim=1)


def _encoding(space: Space) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what makes features of a part of an observation."""
    if isinstance(space, spaces.Box):
        low, high = float(space.low.min()), float(space.high.max())
        part = Array(space.shape, space.dtype.name, low, high)
        if has_cells(part):
            return _one_hot
        if has_words(part):
            return lambda numbers: F.one_hot(numbers.long(), len(WORDS) + 1)
    return torch.Tensor.float


def _one_hot(cells: torch.Tensor) -> torch.Tensor:
    """Return cells [..., 3] as one-hot vectors [..., 20], as `envs.minigrid.encoding` does arrays.

    Sources and models do not import each other, so the encoders have a function of their own.
    """
    numbers = cells.long().unbind(-1)
    return torch.cat([F.one_hot(n, size) for n, size in zip(numbers, SIZES, strict=True)], dim=-1)
