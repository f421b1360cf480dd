"""Compiled bfloat16 matrix products (`ad.models.kernels.gemm`) against PyTorch's, by shape."""

from collections.abc import Callable

import numpy as np
import torch
from numba import njit

from ad.models.kernels.gemm import gemm
from ad.runtime.devices import torch_threads
from ad.runtime.parallel import NUMBA_ENTRY
from scripts.benchmark.measure import Effort, Measurement, Work, alternate, median

# Rows, inputs and outputs: linear layers of the quickstart's model, for a few rows and for all rows
# of a micro-batch, and the attention scores of a few queries.
SHAPES = ((64, 64, 256), (64, 256, 64), (64, 64, 192), (1024, 64, 256), (8, 32, 256))
OPERATIONS = 2e9  # floating-point operations in a repeat


@njit(**NUMBA_ENTRY)
def multiply(times, x, w, y):
    """Write `x` [R, I / 2] times `w` [I / 2, O] to `y`, float32 [R, O], `times` times.

    An element of `x` and `w`, uint32, is a pair of bfloat16 numbers.
    """
    (pairs, columns), rows = w.shape, len(x)
    for _ in range(times):
        gemm((x, 0, pairs, 1), (w, 0, columns), pairs, (y, 0, columns), rows, columns)


def matrix_products(effort: Effort) -> Measurement:
    """Measure our products against PyTorch's on one thread; rates are of the first shape."""
    gflops, rates = {}, {}
    with torch_threads(1):
        for shape in SHAPES:
            contenders = {"ours": _compiled(*shape), "torch.mm": _torch(*shape)}
            measured = alternate(contenders, effort.repeats)
            name = " x ".join(map(str, shape))
            gflops[name] = {key: round(median(values) / 1e9) for key, values in measured.items()}
            rates = rates or measured
    ours = median(rates["ours"])
    result = Measurement("train", "compiled gemm, 64 x 64 x 256", "operations", ours, rates)
    result.peer_name, result.peer = "PyTorch's matmul, one thread", median(rates["torch.mm"])
    result.detail["GFLOP/s by rows x inputs x outputs"] = gflops
    return result


def _compiled(rows: int, inputs: int, outputs: int) -> Work:
    x, w = np.zeros((rows, inputs // 2), np.uint32), np.zeros((inputs // 2, outputs), np.uint32)
    y = np.empty((rows, outputs), np.float32)
    return _repeated(lambda times: multiply(times, x, w, y), 2 * rows * inputs * outputs)


def _torch(rows: int, inputs: int, outputs: int) -> Work:
    x, w = torch.zeros(rows, inputs).bfloat16(), torch.zeros(inputs, outputs).bfloat16()
    y = torch.empty(rows, outputs, dtype=torch.bfloat16)

    def call(times: int) -> None:
        for _ in range(times):
            torch.mm(x, w, out=y)

    return _repeated(call, 2 * rows * inputs * outputs)


def _repeated(call: Callable[[int], None], operations: int) -> Work:
    """Return work that repeats a product of `operations` floating-point operations."""

    def work() -> float:
        times = max(round(OPERATIONS / operations), 1)
        call(times)
        return float(times * operations)

    return work
