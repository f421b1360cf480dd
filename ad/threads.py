"""Shares of a compiled loop in threads: for numba functions that let go of the GIL.

Numba's own parallel loops take twice as long to compile and wait for each other by spinning.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import pairwise

import numba


def share_out(count: int, threads: int, loop: Callable[[int, int], None]) -> None:
    """Call `loop(first, stop)` for shares of `count` things, at most so many `threads`."""
    shares = max(min(threads, count), 1)
    edges = [round(i * count / shares) for i in range(shares + 1)]
    at_once([partial(loop, *share) for share in pairwise(edges)])


def at_once(works: Sequence[Callable[[], None]]) -> None:
    """Call all `works`, the first of them in this thread."""
    running = [_threads().submit(work) for work in works[1:]]
    works[0]()
    for work in running:
        work.result()


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(numba.config.NUMBA_NUM_THREADS)
