"""No position at all: the order of tokens is known only from what the causal mask hides."""

import torch
from torch import nn

from ad.models.embedding import Lookup


class Nowhere(nn.Module):
    """Adds nothing."""

    rotate = None

    def __init__(self, spec, width: int, entries: int):
        super().__init__()

    def forward(self, window: dict[str, torch.Tensor], start: int) -> list[Lookup]:
        """None."""
        return []
