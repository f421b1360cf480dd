"""The interface of observation encoders."""

import torch
from torch import nn


class Encoder(nn.Module):
    """Vectors of all observations; a subclass computes them."""

    random = False  # whether it draws random numbers in training

    def forward(self) -> torch.Tensor:
        """Return the vectors of all observations and, last, of no observation: [S + 1, C]."""
        raise NotImplementedError

    def augment(self, window: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the window whose observations are looked up; a subclass may change it."""
        return window
