"""torch.compile where the machine can: it needs a C++ compiler, and may fail in other ways."""

from collections.abc import Callable

import torch

from ad.runtime.console import notice


def compiled(model: Callable, attempt: Callable) -> Callable:
    """`model` compiled, if `attempt(forward)` (forward and backward of a batch) works with it.

    Otherwise, after one warning, `model` itself: what is wrong with that one shows in training.
    """
    forward = torch.compile(model)
    try:
        attempt(forward)
    except Exception as error:  # compilers fail in many ways, each with an exception of its own
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        notice(f"torch.compile does not work here ({reason}); training goes on without it, slower")
        return model
    return forward
