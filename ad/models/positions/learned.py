"""A learned table over an index: of the decision in its window, or in its whole history.

The table begins as the sinusoids of Vaswani et al. 2017 (section 3.5), so that entries which
training rarely or never reaches are still like their neighbours.
"""

import torch
from torch import nn

from ad.models.embedding import Lookup

SIZE = 0.1  # root mean square of an entry at the beginning, as of the other tables


class IndexTable(nn.Module):
    """A vector for each index below `entries`; a subclass says what is counted."""

    rotate = None

    def __init__(self, spec, width: int, entries: int):
        super().__init__()
        self.vectors = nn.Parameter(SIZE * 2**0.5 * sinusoids(entries, width))


class WindowIndex(IndexTable):
    """The index of a decision in the window: 0 is the oldest that the model still sees."""

    def forward(self, window: dict[str, torch.Tensor], start: int) -> list[Lookup]:
        """By the place in the window."""
        time = window["time"][:, 1:]
        return [
            (self.vectors, torch.arange(start, start + time.shape[1], device=time.device)[None])
        ]


class HistoryIndex(IndexTable):
    """The index of a decision in its history as it is read, with every k-th episode: how far along.

    A rollout begins at 0 and counts all its decisions. Phases of a history are not equally long:
    what one has more than the table reads the last entry.
    """

    def forward(self, window: dict[str, torch.Tensor], start: int) -> list[Lookup]:
        """By the place in the history."""
        return [(self.vectors, window["step"][:, 1:].clamp(max=len(self.vectors) - 1))]


def sinusoids(count: int, width: int) -> torch.Tensor:
    """sin and cos of the indices 0 to count - 1 at falling frequencies, float32 [count, width]."""
    frequency = 10_000.0 ** -(torch.arange(0, width, 2) / width)
    angle = torch.arange(count)[:, None] * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :width]
