"""The gradient of a batch, part by part."""

from collections.abc import Callable, Sequence
from functools import reduce

import torch

from ad.training.optimizer import Optimiser, Rows

Loss = Callable[[slice], torch.Tensor]  # of a part of the batch, as its share of the whole loss
Found = tuple[torch.Tensor, Rows]  # a loss, 0-d, and its gradient


def gradient(optimiser: Optimiser, loss: Loss, parts: Sequence[slice]) -> Found:
    """The sum of `loss` over `parts` and its gradient; what it does not ask for counts as 0."""
    return reduce(_sum, (_of_part(optimiser, loss, part) for part in parts))


def _of_part(optimiser: Optimiser, loss: Loss, part: slice) -> Found:
    value = loss(part)
    found = torch.autograd.grad(value, optimiser.parameters, materialize_grads=True)
    return value.detach(), optimiser.gather([part.flatten() for part in found])


def _sum(one: Found, other: Found) -> Found:
    return one[0] + other[0], [a.add_(b) for a, b in zip(one[1], other[1], strict=True)]
