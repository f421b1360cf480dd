"""Learned position tables over the index of a decision in its window or in its history.

A table is initialized with the sinusoids of Vaswani et al. 2017 (section 3.5), so that entries that
training rarely reaches resemble their neighbors.
"""

import torch
import torch.nn.functional as F
from torch import nn

from ad.models.positions import Start

SCALE = 0.1  # root mean square of an entry at initialization, as in the other tables


class IndexTable(nn.Module):
    """A vector for each index below `entries`; a subclass defines the index."""

    rotate = None

    def __init__(self, spec, width: int, entries: int):
        super().__init__()
        self.vectors = nn.Parameter(SCALE * 2**0.5 * sinusoids(entries, width))


class WindowIndex(IndexTable):
    """The index of a decision in its window, from 0 for the oldest."""

    def forward(self, window: dict[str, torch.Tensor], start: Start) -> list[torch.Tensor]:
        """Return the vectors of the places in the window, [B or 1, T, C]."""
        time = window["time"][:, 1:]
        index = start + torch.arange(time.shape[1], device=time.device)[None]
        return [F.embedding(index.clamp(min=0), self.vectors)]  # -1: padding before an episode


class HistoryIndex(IndexTable):
    """The index of a decision in its strided history, or in its rollout.

    Indices beyond the table read its last entry.
    """

    def forward(self, window: dict[str, torch.Tensor], start: Start) -> list[torch.Tensor]:
        """Return the vectors of the places in the history, [B, T, C]."""
        index = window["step"][:, 1:].clamp(max=len(self.vectors) - 1)
        return [F.embedding(index, self.vectors)]


def sinusoids(count: int, width: int) -> torch.Tensor:
    """Return sin and cos of 0 to count - 1 at falling frequencies, float32 [count, width]."""
    frequency = 10_000.0 ** -(torch.arange(0, width, 2) / width)
    angle = torch.arange(count)[:, None] * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :width]
