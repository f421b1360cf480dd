"""The gradient of a batch, part by part, or of several parts at once on the threads of a CPU.

Threads pay where most of a part's work is one call without Python (`ad/passes.py`): each product is
then some thread's own, and what it reads is in that core's cache.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce

import torch

from ad.devices import torch_threads
from ad.threads import at_once

Sums = Sequence[torch.Tensor | None]  # the loss and the gradients, None of what it does not ask for
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
    parameters = [p for p in model.parameters() if p.requires_grad]
    sums: dict[int, Sums] = {}

    def work(first: int) -> None:
        torch.set_num_threads(1)  # of this thread, for good: it is a worker, or `torch_threads`'s
        for part in parts[first::threads]:
            value = loss(part)
            found = torch.autograd.grad(value, parameters, allow_unused=True)
            sums[first] = _sum(sums.get(first), [value.detach(), *found])

    with torch_threads(1):
        at_once([partial(work, first) for first in range(min(threads, len(parts)))])
        total, *gradients = reduce(_sum, (sums[first] for first in sorted(sums)))
    before = [parameter.grad for parameter in parameters]
    for parameter, gradient in zip(parameters, _sum(before, gradients), strict=True):
        parameter.grad = gradient
    return total


def _sum(some: Sums | None, more: Sums) -> Sums:
    """One by one; None is nothing."""
    if some is None:
        return more
    pairs = zip(some, more, strict=True)
    return [b if a is None else a if b is None else a + b for a, b in pairs]
