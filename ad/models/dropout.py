"""Dropout whose masks are cheap on a CPU: one random byte an element.

PyTorch draws a mask there at some five nanoseconds an element, which is more than the attention
weights themselves cost. A byte decides in steps of 1/256; what is kept is scaled by the share that
is kept on average, so that the mean is exact.
"""

import numpy as np
import torch
import torch.nn.functional as F

from ad.models.rng import draw

LEVELS = 256


def dropout(x: torch.Tensor, probability: float, training: bool) -> torch.Tensor:
    """`x` with each element zero with a `probability`, the others scaled to the same mean."""
    if not training or probability == 0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, probability)
    return x * keep_mask(x, probability) / keep_share(probability)


def keep_mask(like: torch.Tensor, probability: float) -> torch.Tensor:
    """Of the shape and dtype of `like`, 0 where to drop, else 1; by one number of `draw`.

    Of that dtype because a CPU fills and multiplies such numbers some ten times faster than it
    fills where a bool says so.
    """
    words = np.random.SFC64(draw()).random_raw(-(-like.numel() // 8))
    bytes_ = torch.from_numpy(words.view(np.uint8)[: like.numel()]).view(like.shape)
    return torch.ge(bytes_, _level(probability), out=torch.empty_like(like))


def keep_share(probability: float) -> float:
    """The share of elements that a mask keeps on average."""
    return 1 - _level(probability) / LEVELS


def _level(probability: float) -> int:
    """How many of the bytes mean "dropped": at least one, and not all."""
    return min(max(round(probability * LEVELS), 1), LEVELS - 1)
