"""The gradient of a batch, part by part, or of several parts at once on the threads of a CPU.

Threads pay where most of a part's work is one call without Python (`ad/passes.py`): each product is
then some thread's own, and what it reads is in that core's cache.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch

from ad.threads import at_once

Loss = Callable[[slice], torch.Tensor]  # of a part of the batch, as its share of the whole loss


def add_gradient(model: torch.nn.Module, loss: Loss, parts: Sequence[slice]) -> torch.Tensor:
    """Add the gradient of the sum of `loss` over `parts` to that in `model`; that sum, 0-d."""
    total = 0.0
    for part in parts:
        value = loss(part)
        value.backward()
        total = total + value.detach()
    return total


def add_gradient_in_threads(
    model: torch.nn.Module, loss: Loss, parts: Sequence[slice], threads: int
) -> torch.Tensor:
    """The same, in so many `threads`, each of them with one thread of torch.

    Which thread takes which part is fixed, so that the same number of them gives the same bits.
    """
    parameters, sums = list(model.parameters()), {}

    def work(first: int) -> None:
        torch.set_num_threads(1)
        for part in parts[first::threads]:
            value = loss(part)
            found = torch.autograd.grad(value, parameters, materialize_grads=True)
            _add(sums.setdefault(first, []), [value.detach(), *found])

    at_once([partial(work, first) for first in range(min(threads, len(parts)))])
    result: list[torch.Tensor] = []
    for first in sorted(sums):
        _add(result, sums[first])
    for parameter, gradient in zip(parameters, result[1:], strict=True):
        known = parameter.grad
        parameter.grad = gradient if known is None else known + gradient
    return result[0]


def _add(total: list[torch.Tensor], more: list[torch.Tensor]) -> None:
    if not total:
        total.extend(more)
        return
    for mine, theirs in zip(total, more, strict=True):
        mine += theirs
