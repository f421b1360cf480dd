"""No position: the order of tokens is known only through the causal mask."""

import torch
from torch import nn

from ad.models.positions import Start


class NoPosition(nn.Module):
    """Adds nothing to the tokens."""

    rotate, term = None, ""

    def __init__(self, spec, width: int, entries: int):
        super().__init__()

    def forward(self, window: dict[str, torch.Tensor], start: Start) -> list[torch.Tensor]:
        """Return no vectors."""
        return []
