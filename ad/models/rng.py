"""The random numbers of training: a stream for each part of a batch.

What a part draws depends on its place in the batch, not on what was drawn before it.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_stream = threading.local()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """In the block this thread draws from a stream of its own."""
    _stream.words = np.random.SFC64(seed)
    try:
        yield
    finally:
        del _stream.words


def draw() -> int:
    """A number of 62 bits, of this thread's stream or else of torch's."""
    words = getattr(_stream, "words", None)
    return int(torch.randint(2**62, ())) if words is None else words.random_raw() >> 2
