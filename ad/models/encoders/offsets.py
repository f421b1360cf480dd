"""How far a cell lies from the room's centre, in rows and columns, as sinusoids: for any size.

Nothing learned belongs to a single cell, so a room of another size has vectors too. In training
each window is moved as a whole by a random number of rows and columns: then no place is special,
a wall is where it is met, and offsets that the room itself does not have are known as well.
"""

import numpy as np
import torch
from torch import nn

from ad.models.encoders.base import Encoder

REACH = 4  # cells that a window is moved at most, in each direction
WAVELENGTHS = np.geomspace(4, 64, 8)  # in cells


class OffsetEncoder(Encoder):
    """A linear map of the sinusoids of each factor's offset; their sum is the vector."""

    random = True

    def __init__(self, spec, width: int):
        super().__init__()
        self.factors = spec.observation_factors
        self.maps = nn.ModuleList(
            nn.Linear(2 * len(WAVELENGTHS), width, bias=False) for _ in self.factors
        )
        self.none = nn.Embedding(1, width)
        cells = np.unravel_index(np.arange(spec.num_observations), self.factors)
        self.register_buffer("cells", torch.tensor(np.stack(cells)), persistent=False)  # [F, S]

    def forward(self) -> torch.Tensor:
        """[S + 1, C]; in training those of a room with `REACH` cells more on each side."""
        reach = self._reach()
        vectors = 0.0
        for number, (size, linear) in enumerate(zip(self.factors, self.maps, strict=True)):
            shape = [1] * len(self.factors) + [-1]
            shape[number] = size + 2 * reach
            offset = torch.arange(-reach, size + reach, device=self.cells.device) - size // 2
            one = linear(sinusoids(offset).to(linear.weight))
            vectors = vectors + one.view(shape)  # broadcasts to [..., C]
        return torch.cat([vectors.flatten(0, -2), self.none.weight])

    def moved(self, window: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """In training: each window [T + 1] as if it had happened somewhere else."""
        if not self.training:
            return window
        count, device = len(window["observation"]), self.cells.device
        shape = len(self.factors), count, 1
        shift = torch.randint(2 * REACH + 1, shape, device=device)
        names = ("observation", "next_observation")
        return window | {name: self._moved(window[name], shift) for name in names}

    def _moved(self, observation: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """The index [B, T] of an observation in the larger room; shift [F, B, 1], from 0."""
        known = observation.clamp(max=self.cells.shape[1] - 1)
        index = torch.zeros_like(observation)
        for size, cells, by in zip(self.factors, self.cells, shift, strict=True):
            index = index * (size + 2 * REACH) + cells[known] + by
        none = int(np.prod([size + 2 * REACH for size in self.factors]))
        return torch.where(observation == self.cells.shape[1], none, index)

    def _reach(self) -> int:
        return REACH if self.training else 0


def sinusoids(offset: torch.Tensor) -> torch.Tensor:
    """sin and cos of offsets [n] at every wavelength: [n, 2 K]."""
    turns = offset[:, None] / torch.as_tensor(WAVELENGTHS, device=offset.device).float()
    angle = 2 * np.pi * turns
    return torch.cat([angle.sin(), angle.cos()], dim=1)
