"""Positions: how a token tells where in its episode, window or history it stands.

A position is built as `Position(spec, width, entries)` (`entries`: the length of its table) and is
called as `position(window, start)`. It returns a list of vectors, [B, T, C] or [1, T, C], that are
added to the tokens of the decisions of a window; `start` is the number of the first decision where
the window is the end of a longer one. `rotate(x, start)`, if it is not None, rotates queries and
keys instead, from token `start` on. Both also take one start for each sequence, int64 [B, 1], which
is negative for padding before an episode. `term`, "position" if it is missing, names the vectors
among the terms of a token. To add one: a class, here or in a file of its own,
and a line in `ad/registry.py`.

A full context drops its oldest half and encodes the rest anew as a window of its own, but for the
memories that carry a state from segment to segment. The indices then begin at 0 again (window,
rotary), continue (history), or come from the environment (env_time), so every position is the same
with a cache as without one.
"""

import torch
import torch.nn.functional as F
from torch import nn

# The number of the first decision (in `rotate`, token), of all sequences or int64 [B, 1].
Start = int | torch.Tensor
SCALE = 0.1  # root mean square of an entry at initialization, as in the other tables


class EnvTime(nn.Module):
    """An embedding for each step of an episode, shared by the tokens of a transition."""

    rotate, term = None, "time"

    def __init__(self, spec, width: int, entries: int):
        super().__init__()
        self.vectors = nn.Embedding(spec.episode_length, width)

    def forward(self, window: dict[str, torch.Tensor], start: Start) -> list[torch.Tensor]:
        """Return the vectors of the time of each decision, [B, T, C].

        Times beyond the longest episode of the histories have the last vector.
        """
        time = window["time"][:, 1:].clamp(max=len(self.vectors.weight) - 1)
        return [F.embedding(time, self.vectors.weight)]


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


class NoPosition(nn.Module):
    """Adds nothing to the tokens."""

    rotate, term = None, ""

    def __init__(self, spec, width: int, entries: int):
        super().__init__()

    def forward(self, window: dict[str, torch.Tensor], start: Start) -> list[torch.Tensor]:
        """Return no vectors."""
        return []


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
