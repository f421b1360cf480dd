"""The interface of observation encoders."""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import nn

from envs.spaces import Discrete, Part


class Encoder(nn.Module):
    """Vectors of the values of one part of an observation; a subclass computes them.

    It is built as `Subclass(part, width)`. The vector of "no observation" is the tokenizer's.
    """

    random = False  # whether it draws random numbers in training
    any_size = False  # whether its parameters serve parts with other numbers of values

    @staticmethod
    @abstractmethod
    def supports(part: Part) -> bool:
        """Return whether the class can encode the values of `part`."""
        raise NotImplementedError

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the vectors [..., C] of `values` [..., *shape]."""
        raise NotImplementedError

    def augment(self, first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the values of both roles in a window, [B, T + 1, *shape] each, as they are read.

        A subclass may change them in training.
        """
        return first, second


class TabularEncoder(Encoder):
    """An encoder of a discrete part by a table of the vectors of all values.

    Rollouts compute the table once, since the model is frozen.
    """

    @staticmethod
    def supports(part: Part) -> bool:
        """Return whether `part` is discrete."""
        return isinstance(part, Discrete)

    def table(self) -> torch.Tensor:
        """Return the vectors of all n values and, last, of no observation: [n + 1, C]."""
        raise NotImplementedError

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the vectors [..., C] of the indices `values` [...]."""
        return F.embedding(values, self.table())
