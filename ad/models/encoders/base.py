"""What the encoders have in common."""

import torch
from torch import nn


class Encoder(nn.Module):
    """Vectors of all observations; a subclass makes them (see `ad/models/encoders/__init__.py`)."""

    random = False  # whether it draws random numbers in training

    def forward(self) -> torch.Tensor:
        """The vectors of all observations and, last, of none: [S + 1, C]."""
        raise NotImplementedError

    def moved(self, window: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The window as the vectors are to be looked up by it; only `offsets` changes anything."""
        return window
