"""Products of bfloat16 tiles in compiled loops (`gemm.py`) against the library's, by shape."""

from collections.abc import Callable

import numpy as np
import torch
from numba import njit

from ad.models.kernels.gemm import gemm
from ad.runtime.devices import torch_threads
from ad.runtime.parallel import NUMBA_ENTRY
from scripts.benchmark.measure import Effort, Row, Work, alternate, median

# Rows, inputs, outputs: the linear maps of a quickstart step, for `training_loops.ROW_BLOCK` rows
# and for all rows of a micro-batch; the scores of a few queries.
SHAPES = ((64, 64, 256), (64, 256, 64), (64, 64, 192), (1024, 64, 256), (8, 32, 256))


@njit(**NUMBA_ENTRY)
def multiply(times, x, w, y):
    """Write `x` [R, I / 2] @ `w` [I / 2, O], in words, to `y` [R, O], `times` times."""
    (pairs, columns), rows = w.shape, len(x)
    for _ in range(times):
        gemm(x, 0, pairs, 1, w, 0, columns, pairs, y, 0, columns, rows, columns)


def tiles(effort: Effort) -> Row | None:
    """Both on one thread; the first shape is the row's figure."""
    found, rates = {}, {}
    with torch_threads(1):
        for shape in SHAPES:
            contenders = {"tiles": _tiles(*shape), "library": _library(*shape)}
            mine = alternate(contenders, effort.repeats)
            name = " x ".join(map(str, shape))
            found[name] = {who: round(median(v) / 1e9) for who, v in mine.items()}
            rates = rates or mine
    name, ours = "products of tiles, 64 x 64 x 256", median(rates["tiles"])
    row = Row("train", name, "operations", ours, rates)
    row.peer_name, row.peer = "product of PyTorch, one thread", median(rates["library"])
    row.detail["GFLOP/s by rows x inputs x outputs"] = found
    return row


def _times(operations: int) -> int:
    return max(round(2e9 / operations), 1)


def _tiles(rows: int, inputs: int, outputs: int) -> Work:
    x, w = np.zeros((rows, inputs // 2), np.uint32), np.zeros((inputs // 2, outputs), np.uint32)
    y = np.empty((rows, outputs), np.float32)
    return _counted(lambda times: multiply(times, x, w, y), 2 * rows * inputs * outputs)


def _library(rows: int, inputs: int, outputs: int) -> Work:
    x, w = torch.zeros(rows, inputs).bfloat16(), torch.zeros(inputs, outputs).bfloat16()
    y = torch.empty(rows, outputs, dtype=torch.bfloat16)

    def call(times: int) -> None:
        for _ in range(times):
            torch.mm(x, w, out=y)

    return _counted(call, 2 * rows * inputs * outputs)


def _counted(call: Callable[[int], None], operations: int) -> Work:
    def work() -> float:
        times = _times(operations)
        call(times)
        return float(times * operations)

    return work
