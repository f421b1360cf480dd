"""torch.compile where it works: it needs a C++ compiler, and may fail in other ways."""

from collections.abc import Callable

import torch

from ad.runtime.console import warn


def compiled(model: Callable, attempt: Callable) -> Callable:
    """Return `model` compiled if `attempt(forward)`, forward and backward of a batch, succeeds.

    Otherwise warn and return `model` itself: its own errors show in training.
    """
    forward = torch.compile(model)
    try:
        attempt(forward)
    except Exception as error:  # compilers fail in many ways, each with an exception of its own
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        warn(f"torch.compile does not work here ({reason}); training runs without it, slower")
        return model
    return forward
