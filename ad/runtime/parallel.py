"""Shares of a compiled loop in threads: for numba functions that let go of the GIL.

Numba's own parallel loops take twice as long to compile and wait for each other by spinning.
`LOOP` are the options of a function that is called from Python, `HELPER` of one that such a loop
calls: inlined, since a helper that is a function of its own is compiled once for each caller under
one name, and the linker's choice, another in the process that compiles than in those that load its
cache, shows in the last bits. The error model: Python's asks at each division whether to raise, and
no such loop is vectorised.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache, partial
from itertools import pairwise

import numba

_FAST = {"reassoc", "contract", "arcp", "nsz"}  # sums may vectorise; NaN and infinity stay
LOOP = {"fastmath": _FAST, "error_model": "numpy", "nogil": True, "cache": True}
HELPER = {"fastmath": _FAST, "error_model": "numpy", "forceinline": True}


def split_evenly(count: int, parts: int) -> list[tuple[int, int]]:
    """Return (start, stop) of consecutive `parts` of `count` items, about equally long."""
    return list(pairwise(round(i * count / parts) for i in range(parts + 1)))


def split_max(count: int, most: int) -> list[tuple[int, int]]:
    """Return (start, stop) of as few even parts of `count` items as hold at most `most` each."""
    return split_evenly(count, -(-count // most))


def share_out(count: int, threads: int, loop: Callable[[int, int], None]) -> None:
    """Call `loop(first, stop)` for shares of `count` things, at most so many `threads`."""
    shares = max(min(threads, count), 1)
    at_once([partial(loop, *share) for share in split_evenly(count, shares)])


def at_once(works: Sequence[Callable[[], None]]) -> None:
    """Call all `works`, the first of them in this thread; none is at work when this returns."""
    running = [_threads().submit(work) for work in works[1:]]
    try:
        works[0]()
    finally:
        wait(running)
    for work in running:
        work.result()


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(numba.config.NUMBA_NUM_THREADS)
