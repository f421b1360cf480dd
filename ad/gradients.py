"""The gradient of a batch, part by part, or of several parts at once on the threads of a CPU.

Threads pay where most of a part's work is one call without Python (`ad/passes.py`): each product is
then some thread's own, and what it reads is in that core's cache.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce

import torch

from ad.devices import torch_threads
from ad.optimiser import Optimiser, Rows
from ad.threads import at_once

Loss = Callable[[slice], torch.Tensor]  # of a part of the batch, as its share of the whole loss
Found = tuple[torch.Tensor, Rows]  # a loss, 0-d, and its gradient


def gradient(optimiser: Optimiser, loss: Loss, parts: Sequence[slice]) -> Found:
    """The sum of `loss` over `parts` and its gradient; what it does not ask for counts as 0."""
    return reduce(_sum, (_of_part(optimiser, loss, part) for part in parts))


def gradient_in_threads(
    optimiser: Optimiser, loss: Loss, parts: Sequence[slice], threads: int
) -> Found:
    """The same, in so many `threads`, each of them with one thread of torch.

    Which thread takes which part is fixed, so that the same number of them gives the same bits.
    """
    sums: dict[int, Found] = {}

    def work(first: int) -> None:
        torch.set_num_threads(1)  # of this thread, for good: it is a worker, or `torch_threads`'s
        sums[first] = gradient(optimiser, loss, parts[first::threads])

    with torch_threads(1):
        at_once([partial(work, first) for first in range(min(threads, len(parts)))])
        return reduce(_sum, (sums[first] for first in sorted(sums)))


def _of_part(optimiser: Optimiser, loss: Loss, part: slice) -> Found:
    value = loss(part)
    found = torch.autograd.grad(value, optimiser.parameters, materialize_grads=True)
    return value.detach(), optimiser.gather([part.flatten() for part in found])


def _sum(one: Found, other: Found) -> Found:
    return one[0] + other[0], [a.add_(b) for a, b in zip(one[1], other[1], strict=True)]
