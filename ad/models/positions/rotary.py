"""Rotary positions (Su et al. 2021, section 3.2): attention depends on token distances."""

import torch

from ad.models.positions import Start
from ad.models.positions.none import NoPosition


class Rotary(NoPosition):
    """Rotates queries and keys by angles proportional to the token's index; adds no vectors."""

    @staticmethod
    def rotate(x: torch.Tensor, start: Start) -> torch.Tensor:
        """Rotate `x` [B, H, L, D], tokens `start` to start + L - 1; D is even."""
        length, width = x.shape[2:]
        frequency = 10_000.0 ** -(torch.arange(0, width, 2, device=x.device) / width)
        index = start + torch.arange(length, device=x.device)[None]  # [B or 1, L]
        angle = index[:, None, :, None] * frequency
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)  # [B or 1, 1, L, D / 2]
        one, other = x.chunk(2, dim=3)
        return torch.cat([one * cos - other * sin, other * cos + one * sin], dim=3)
