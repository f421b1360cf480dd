"""A small vision transformer (Dosovitskiy et al. 2021) for pictures of cells or of pixels."""

import torch
import torch.nn.functional as F
from torch import nn

from ad.models.encoders.base import Encoder
from ad.models.encoders.pictures import Patches, is_picture, place_sinusoids
from envs.spaces import Array

HEADS = 2


class VisionTransformer(Encoder):
    """One pre-norm block of attention and an MLP over cells or patches, then their mean.

    The block has half the width, at least 8. The place of a cell is a fixed sinusoid.
    """

    supports = staticmethod(is_picture)

    def __init__(self, part: Array, width: int):
        super().__init__()
        inner = HEADS * max(width // 2 // HEADS, 4)
        self.patches = Patches(part, inner)
        places = place_sinusoids(*self.patches.grid, inner)
        self.register_buffer("places", places, persistent=False)
        self.norms = nn.ModuleList(nn.LayerNorm(inner) for _ in range(3))
        self.qkv, self.mix = nn.Linear(inner, 3 * inner), nn.Linear(inner, inner)
        self.up, self.down = nn.Linear(inner, 2 * inner), nn.Linear(2 * inner, inner)
        self.out = nn.Linear(inner, width)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the vectors [..., C] of `values` [..., H, W, D]."""
        x = self.patches(values.reshape(-1, *values.shape[-3:])) + self.places
        x = x.flatten(1, 2)  # [N, places, inner]
        x = x + self.mix(self._attend(self.norms[0](x)))
        x = x + self.down(F.gelu(self.up(self.norms[1](x))))
        return self.out(self.norms[2](x).mean(1)).view(*values.shape[:-3], -1)

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        """Attend from every place to every place, [N, places, inner] -> the same."""
        qkv = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(*qkv).transpose(1, 2).flatten(2)
