"""Products of bfloat16 tiles, and sums of look-ups, against plain operations."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from processes import ROOT

from ad.models.embedding import summed

PRODUCTS = """
import numpy as np
import torch
from numba import njit
from ad.models.kernels.gemm import ROW_MULTIPLE as ROWS, gemm, gemm_accumulate

@njit
def both(x, by_row, w_pairs, rows, columns, pairs, padding):
    one = np.full((rows, columns + padding), np.float32(7))
    row, step = (pairs, 1) if by_row else (1, rows)
    gemm(x, 0, row, step, w_pairs, 0, columns, pairs, one, 0, columns + padding, rows, columns)
    two = one.copy()
    where = (0, columns + padding, rows, columns)
    gemm_accumulate(x, 0, row, step, w_pairs, 0, columns, pairs, two, *where)
    return one, two

def words(x):
    return np.ascontiguousarray(x.view(torch.uint16).numpy()).view(np.uint32)

for rows, columns, pairs in ((ROWS, 16, 1), (3 * ROWS, 48, 5), (64, 64, 32), (ROWS, 32, 0)):
    x, w = torch.randn(rows, 2 * pairs).bfloat16(), torch.randn(2 * pairs, columns).bfloat16()
    exact = x.double().numpy() @ w.double().numpy()
    w_pairs = words(w.view(pairs, 2, columns).transpose(1, 2)).reshape(pairs, columns)
    transposed = words(x.view(rows, pairs, 2).transpose(0, 1)).reshape(pairs, rows)
    for by_row, given in ((True, words(x).reshape(rows, pairs)), (False, transposed)):
        one, two = both(given, by_row, w_pairs, rows, columns, pairs, 3)
        assert (one[:, columns:] == 7).all() and (two[:, columns:] == 7).all()
        np.testing.assert_allclose(one[:, :columns], exact, atol=1e-4)
        np.testing.assert_allclose(two[:, :columns], 2 * exact, atol=2e-4)
print("all")
"""


@pytest.mark.parametrize("processor", ["this one", "generic"])
def test_products_of_tiles_are_those_of_numpy(processor):
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    if processor != "this one":
        env |= {"NUMBA_CPU_NAME": processor}
    out = subprocess.run([sys.executable, "-c", PRODUCTS], env=env, capture_output=True, text=True)
    assert out.stdout == "all\n", out.stderr


def look_ups(windows: int, length: int, width: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Some, of which the last is the same for all windows and one is asked for twice."""
    torch.manual_seed(0)
    tables = [torch.randn(size, width, requires_grad=True) for size in (7, 1, 30)]
    shapes = [(windows, length), (windows, length), (1, length)]
    indices = [
        torch.randint(len(table), shape) for table, shape in zip(tables, shapes, strict=True)
    ]
    rows = list(zip(tables, indices, strict=True))
    return [*rows, (tables[0], indices[0].flip(0))]


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 9, 16), (3, 200, 24)])
def test_a_sum_of_look_ups_is_the_same_in_loops(shape):
    lookups, found = look_ups(*shape), []
    known = torch.randn(shape)
    for rough in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=rough):
            total = summed(lookups)
        assert ("Sum" in str(total.grad_fn)) == rough
        found.append([total, *torch.autograd.grad(total, [table for table, _ in lookups], known)])
    for plain, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)
    assert torch.equal(found[0][0], sum(F.embedding(index, table) for table, index in lookups))


def test_an_index_that_no_table_has_is_refused():
    lookups = look_ups(2, 3, 4)
    for wrong in (1, -1):  # in tables that follow each other both would be a row
        lookups[1] = lookups[1][0], torch.full((2, 3), wrong)
        for rough in (False, True):
            with pytest.raises(IndexError), torch.autocast("cpu", torch.bfloat16, enabled=rough):
                summed(lookups)


def test_rows_of_a_gradient_add_up_in_the_table():
    table, index = torch.zeros(4, 2, requires_grad=True), torch.tensor([[3, 3, 0]])
    with torch.autocast("cpu", torch.bfloat16):
        total = summed([(table, index)])
    (of_table,) = torch.autograd.grad(total, table, torch.ones(1, 3, 2))
    np.testing.assert_array_equal(of_table, [[1, 1], [0, 0], [0, 0], [2, 2]])
