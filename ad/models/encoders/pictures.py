"""What the encoders of pictures share: MiniGrid's cells as one-hot vectors, patches and places.

A picture is an array [H, W, D]. One of cells holds an object, a color and a state in each place, as
indices (Chevalier-Boisvert et al. 2023, section 3.1); stored that way it is small, and the encoders
make the one-hot vectors. Every other picture is one of pixels.
"""

import numpy as np
import torch
from torch import nn

from envs.minigrid.encoding import NUM_PLANES, SIZES, has_cells
from envs.spaces import Array, Part

PATCH = 4  # pixels on a side of a patch
WAVELENGTHS = 4, 64  # shortest and longest of the sinusoids of places, in cells


def is_picture(part: Part) -> bool:
    """Return whether `part` is an array [H, W, D] of integers."""
    is_array = isinstance(part, Array) and len(part.shape) == 3
    return is_array and np.dtype(part.dtype).kind in "iu"


def one_hot(cells: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return cells [..., 3] of indices as one-hot vectors [..., 20] of `dtype`.

    An index beyond the vocabulary is a vector of zeros.
    """
    words = [
        channel[..., None] == torch.arange(size, device=cells.device)
        for channel, size in zip(cells.unbind(-1), SIZES, strict=True)
    ]
    return torch.cat(words, dim=-1).to(dtype)


class Patches(nn.Module):
    """A linear map of each cell's one-hot vector, or of each patch of 4 x 4 pixels.

    It maps pictures [N, H, W, D] to [N, *grid, C]; `grid` is the number of rows and columns. Pixels
    are scaled to [-1, 1] by the bounds of the part; those beyond the last whole patch are cut off.
    """

    def __init__(self, part: Array, width: int):
        super().__init__()
        rows, columns, depth = part.shape
        self.of_cells = has_cells(part)
        self.size = 1 if self.of_cells else min(PATCH, rows, columns)
        self.grid = rows // self.size, columns // self.size
        self.linear = nn.Linear(NUM_PLANES if self.of_cells else self.size**2 * depth, width)
        known = part.low is not None and part.high is not None and part.high > part.low
        self.low, self.high = (part.low, part.high) if known else (-1.0, 1.0)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return the vectors [N, *grid, C] of `pictures` [N, H, W, D]."""
        dtype = self.linear.weight.dtype
        if self.of_cells:
            return self.linear(one_hot(pictures, dtype))
        rows, columns = (self.size * count for count in self.grid)
        scaled = 2 * (pictures[:, :rows, :columns].to(dtype) - self.low) / (self.high - self.low)
        patches = (scaled - 1).unflatten(2, (self.grid[1], self.size))
        patches = patches.unflatten(1, (self.grid[0], self.size)).transpose(2, 3)
        return self.linear(patches.flatten(3))


def place_sinusoids(rows: int, columns: int, width: int) -> torch.Tensor:
    """Return a fixed vector for each place, float32 [rows, columns, `width`].

    A half tells the row and the other the column, each by sin and cos at falling frequencies
    (Vaswani et al. 2017, section 3.5), whose wavelengths suit a grid.
    """
    count = -(-width // 4)
    frequency = 2 * np.pi / torch.from_numpy(np.geomspace(*WAVELENGTHS, count)).float()

    def waves(size: int) -> torch.Tensor:
        angle = torch.arange(size)[:, None] * frequency
        return torch.cat([angle.sin(), angle.cos()], dim=1)

    row = waves(rows)[:, None].expand(-1, columns, -1)
    column = waves(columns)[None].expand(rows, -1, -1)
    return torch.stack([row, column], dim=3).flatten(2)[..., :width].contiguous()
