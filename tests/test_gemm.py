"""Products of bfloat16 matrices in compiled loops against those of NumPy."""

import os
import subprocess
import sys

import pytest
from processes import ROOT

PRODUCTS = """
import numpy as np
import torch
from numba import njit
from ad.models.kernels.gemm import ROW_MULTIPLE as ROWS, gemm, gemm_accumulate

@njit
def both(x, by_row, w_pairs, rows, columns, pairs, padding):
    one = np.full((rows, columns + padding), np.float32(7))
    row, step = (pairs, 1) if by_row else (1, rows)
    factors = (x, 0, row, step), (w_pairs, 0, columns)
    gemm(*factors, pairs, (one, 0, columns + padding), rows, columns)
    two = one.copy()
    gemm_accumulate(*factors, pairs, (two, 0, columns + padding), rows, columns)
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
def test_products_are_those_of_numpy(processor):
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    if processor != "this one":
        env |= {"NUMBA_CPU_NAME": processor}
    out = subprocess.run([sys.executable, "-c", PRODUCTS], env=env, capture_output=True, text=True)
    assert out.stdout == "all\n", out.stderr
