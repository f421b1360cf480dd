"""Options of numba functions, and threads that run those functions in parallel.

The functions release the GIL, so Python threads suffice. Numba's own parallel loops take twice as
long to compile, and their threads spin while they wait.

`NUMBA_ENTRY` are the options of functions that Python calls, `NUMBA_INLINE` of their helpers.
Helpers are force-inlined. Otherwise numba emits one copy per caller under the same symbol, the
linker may keep a different copy when compiling than when loading from the cache, and results differ
in the last bits. The error model is numpy's: with Python's, each division may raise an error, which
prevents vectorization.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache, partial
from itertools import pairwise
from typing import Any

import numba

_FAST = {"reassoc", "contract", "arcp", "nsz"}  # sums may be vectorized; NaN and infinity stay
NUMBA_ENTRY: dict[str, Any] = {
    "fastmath": _FAST,
    "error_model": "numpy",
    "nogil": True,
    "cache": True,
}
NUMBA_INLINE: dict[str, Any] = {"fastmath": _FAST, "error_model": "numpy", "forceinline": True}
MAX_THREADS: int = vars(numba.config)["NUMBA_NUM_THREADS"]  # which numba sets when it is imported
THREADS = {"most": MAX_THREADS}  # not numba's own number, which would set that of torch as well


def split_evenly(count: int, parts: int) -> list[tuple[int, int]]:
    """Split `range(count)` into `parts` consecutive ranges of about equal length: (start, stop)."""
    return list(pairwise(round(i * count / parts) for i in range(parts + 1)))


def limit_threads(count: int) -> None:
    """Let `parallel_for` take at most `count` threads in this process from now on."""
    THREADS["most"] = min(count, MAX_THREADS)


def parallel_for(count: int, loop: Callable[[int, int], None]) -> None:
    """Split `range(count)` among at most THREADS threads; each calls `loop(start, stop)`."""
    parts = max(min(THREADS["most"], count), 1)
    run_all([partial(loop, *part) for part in split_evenly(count, parts)])


def run_all(functions: Sequence[Callable[[], None]]) -> None:
    """Call all `functions` concurrently, the first in this thread, and return when all are done.

    An exception of any of them is raised then.
    """
    running = [_threads().submit(function) for function in functions[1:]]
    try:
        functions[0]()
    finally:
        wait(running)
    for future in running:
        future.result()


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MAX_THREADS)
