"""Sinusoids of a cell's offset from the center of the room, for rooms of any size.

No learned parameter belongs to a single cell, so a room of another size has vectors too. In
training each window is shifted by a random number of rows and columns: then no place is special,
and offsets that the room itself does not have are trained as well.
"""

import operator
from functools import reduce

import numpy as np
import torch
from torch import nn

from ad.models.encoders.base import TabularEncoder
from envs.spaces import Discrete

MAX_SHIFT = 4  # cells by which a window is shifted at most, in each direction
WAVELENGTHS = np.geomspace(4, 64, 8)  # in cells


class OffsetEncoder(TabularEncoder):
    """A linear map of the sinusoids of each factor's offset; their outputs are added."""

    cells: torch.Tensor
    random = True
    any_size = True

    def __init__(self, part: Discrete, width: int):
        super().__init__()
        self.factors = part.factors
        self.maps = nn.ModuleList(
            nn.Linear(2 * len(WAVELENGTHS), width, bias=False) for _ in self.factors
        )
        self.none = nn.Embedding(1, width)
        cells = np.unravel_index(np.arange(part.n), self.factors)
        self.register_buffer("cells", torch.tensor(np.stack(cells)), persistent=False)  # [F, n]

    def table(self) -> torch.Tensor:
        """Return [n + 1, C]; in training of a room with `MAX_SHIFT` more cells on each side."""
        margin = MAX_SHIFT if self.training else 0
        terms = []
        for number, (size, linear) in enumerate(zip(self.factors, self.maps, strict=True)):
            shape = [1] * len(self.factors) + [-1]
            shape[number] = size + 2 * margin
            offset = torch.arange(-margin, size + margin, device=self.cells.device) - size // 2
            term = linear(sinusoids(offset).to(self.none.weight))
            terms.append(term.view(shape))  # broadcasts to [..., C]
        return torch.cat([reduce(operator.add, terms).flatten(0, -2), self.none.weight])

    def augment(self, first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Shift each window by random rows and columns in training."""
        if not self.training:
            return first, second
        shape = len(self.factors), len(first), 1
        shift = torch.randint(2 * MAX_SHIFT + 1, shape, device=self.cells.device)
        shift[:-2] = MAX_SHIFT  # whether a key is held is no place
        return self._shifted(first, shift), self._shifted(second, shift)

    def _shifted(self, observation: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """Return the indices of observations [B, T] in the larger room, shifted.

        `shift`, [number of factors, B, 1], is 0 to 2 `MAX_SHIFT`; `MAX_SHIFT` moves nothing.
        """
        known = observation.clamp(max=self.cells.shape[1] - 1)
        index = torch.zeros_like(observation)
        for size, cells, by in zip(self.factors, self.cells, shift, strict=True):
            index = index * (size + 2 * MAX_SHIFT) + cells[known] + by
        none = int(np.prod([size + 2 * MAX_SHIFT for size in self.factors]))
        return torch.where(observation == self.cells.shape[1], none, index)


def sinusoids(offset: torch.Tensor) -> torch.Tensor:
    """Return sin and cos of offsets [n] at every wavelength, [n, 2 K]."""
    turns = offset[:, None] / torch.as_tensor(WAVELENGTHS, device=offset.device).float()
    angle = 2 * np.pi * turns
    return torch.cat([angle.sin(), angle.cos()], dim=1)
