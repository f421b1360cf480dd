"""Linear maps, layer normalization and residual additions of `training_loops.py`, row by row.

bfloat16 arrays are uint16. Functions that take a `layer` use it as the index of the first dimension
of parameters and their gradients.

Numba's cache does not see a change in this file: see `llvm.py`.
"""

import numpy as np
from numba import njit

from ad.models.kernels.bf16 import interleave_bf16, store_bf16
from ad.models.kernels.functions import dropout_scale
from ad.models.kernels.gemm import ROW_MULTIPLE, gemm, gemm_accumulate
from ad.models.kernels.llvm import LANES
from ad.models.kernels.simd import broadcast, load, mask_tail, reduce_sum, store
from ad.runtime.parallel import NUMBA_INLINE

ROW_PADDING = LANES  # words between rows of words: rows of 4 KiB would share one set of a cache

_ZERO, _ONE = np.float32(0), np.float32(1)
_EPS = np.float32(1e-5)  # of layer normalization, torch's default


@njit(**NUMBA_INLINE)
def linear(x, start, rows, matrix, first, columns, product):
    """Write a linear map, without bias, of `rows` rows of `x` from `start` on to `product`.

    `x` is bfloat16 [N, in], `matrix` words [in / 2, out + ROW_PADDING], `product` float32. It gets
    at most `columns` columns of the result from `first` on. Returns the column that follows them.
    """
    (k_pairs, matrix_stride), product_stride = matrix.shape, product.shape[1]
    last = min(first + columns, matrix_stride - ROW_PADDING)
    factors = (x, start * k_pairs, k_pairs, 1), (matrix, first, matrix_stride)
    rows_padded = (rows + ROW_MULTIPLE - 1) // ROW_MULTIPLE * ROW_MULTIPLE
    gemm(*factors, k_pairs, (product, 0, product_stride), rows_padded, last - first)
    return last


@njit(**NUMBA_INLINE)
def accumulate_weight_grad(dy, dy_start, x, x_start, rows, workspace, grad):
    """Accumulate the weight gradient of a linear map over `rows` rows: dW += dYᵀ X.

    `dy` [N, out] and `x` [N, in] are bfloat16, `grad` is float32 [out, in].
    """
    outputs, inputs = grad.shape
    interleave_rows(dy, dy_start, rows, 0, outputs, workspace.dy_pairs, outputs + ROW_PADDING)
    interleave_rows(x, x_start, rows, 0, inputs, workspace.x_pairs, inputs + ROW_PADDING)
    dy_words = workspace.dy_pairs, 0, 1, outputs + ROW_PADDING
    x_words = workspace.x_pairs, 0, inputs + ROW_PADDING
    gemm_accumulate(dy_words, x_words, (rows + 1) // 2, (grad, 0, inputs), outputs, inputs)


@njit(**NUMBA_INLINE)
def interleave_rows(x, start, rows, column, width, pairs, pair_stride):
    """Write words of two rows of `x` each, bfloat16, from `start` and `column` on, to `pairs`.

    Each row of `pairs` gets `width` words, `pair_stride` after those of the row before.
    """
    row_stride = x.shape[1]
    for r in range(0, rows, 2):
        source = (start + r) * row_stride + column
        for c in range(0, width, LANES):
            target = r // 2 * pair_stride + c
            interleave_bf16(x, source + c, source + c + row_stride, pairs, target)


@njit(**NUMBA_INLINE)
def layer_norm(x, row, width, params, layer, y, r, stats):
    """Write the layer normalization of a `row` of `x`, float32, to row `r` of `y`, bfloat16.

    `params` [layers, 2, C] are scale and shift. Fills the row of `stats` [N, 2]: mean and
    1 / deviation of the first `width` numbers.
    """
    layer_norm_stats(x, row, width, stats)
    layer_norm_from_stats(x, row, params, layer, y, r, stats)


@njit(**NUMBA_INLINE)
def layer_norm_stats(x, row, width, stats):
    """Write mean and 1 / deviation of the first `width` numbers of a `row` of `x` to `stats`."""
    width_padded = x.shape[1]
    offset, sums = row * width_padded, broadcast(_ZERO)
    for c in range(0, width_padded, LANES):
        sums = sums + load(x, offset + c)
    mean = reduce_sum(sums) / np.float32(width)
    minus_mean, squares = broadcast(-mean), broadcast(_ZERO)
    for c in range(0, width_padded, LANES):
        centered = mask_tail(load(x, offset + c) + minus_mean, width - c, _ZERO)
        squares = centered * centered + squares
    variance = reduce_sum(squares) / np.float32(width)
    stats[row, 0], stats[row, 1] = mean, _ONE / np.sqrt(variance + _EPS)


@njit(**NUMBA_INLINE)
def layer_norm_from_stats(x, row, params, layer, y, r, stats):
    """Write the layer normalization of a `row` of `x` to row `r` of `y`, given its `stats`."""
    width_padded = x.shape[1]
    for c in range(0, width_padded, LANES):
        value = layer_norm_vector(x, row, c, params, layer, stats)
        store_bf16(y, r * width_padded + c, value)


@njit(**NUMBA_INLINE)
def layer_norm_vector(x, row, c, params, layer, stats):
    """Return the layer normalization of `LANES` numbers of a `row` of `x`, from column `c` on."""
    width_padded = x.shape[1]
    normal = (load(x, row * width_padded + c) - stats[row, 0]) * stats[row, 1]
    scale, shift = 2 * layer * width_padded + c, (2 * layer + 1) * width_padded + c
    return normal * load(params, scale) + load(params, shift)


@njit(**NUMBA_INLINE)
def layer_norm_backward(dy, r, x, row, width, stats, params, layer, dx, d_params):
    """Add the gradients of a layer normalization of a `row` of `x` to `dx` and `d_params`.

    Row `r` of `dy`, float32, is the gradient of its result.
    """
    width_padded, offset, dy_offset = x.shape[1], row * x.shape[1], r * dy.shape[1]
    minus_mean, inverse_std = broadcast(-stats[row, 0]), broadcast(stats[row, 1])
    d_sum = d_normal_sum = broadcast(_ZERO)
    for c in range(0, width_padded, LANES):
        d, normal = load(dy, dy_offset + c), (load(x, offset + c) + minus_mean) * inverse_std
        scale, shift = 2 * layer * width_padded + c, (2 * layer + 1) * width_padded + c
        store(d_params, scale, d * normal + load(d_params, scale))
        store(d_params, shift, d + load(d_params, shift))
        d = d * load(params, scale)
        d_sum = d_sum + d
        d_normal_sum = d * normal + d_normal_sum
    minus_d_mean = broadcast(-reduce_sum(d_sum) / np.float32(width))
    minus_d_normal_mean = broadcast(-reduce_sum(d_normal_sum) / np.float32(width))
    for c in range(0, width_padded, LANES):
        d, normal = load(dy, dy_offset + c), (load(x, offset + c) + minus_mean) * inverse_std
        scale = 2 * layer * width_padded + c
        d = d * load(params, scale) + minus_d_mean + normal * minus_d_normal_mean
        store(dx, offset + c, inverse_std * d + load(dx, offset + c))


@njit(**NUMBA_INLINE)
def add_residual(x, row, product, r, bias, layer, dropout, out):
    """Write a `row` of `x` plus dropout of row `r` of `product` + `bias` to `out`."""
    width_padded = x.shape[1]
    for c in range(0, width_padded, LANES):
        value = load(product, r * product.shape[1] + c) + load(bias, layer * width_padded + c)
        value = value * dropout_scale(dropout, row * width_padded + c)
        store(out, row * width_padded + c, load(x, row * width_padded + c) + value)


@njit(**NUMBA_INLINE)
def add_residual_backward(d_out, row, dropout, d_product, r, d_bias, layer):
    """Write the gradient of `add_residual`'s product to row `r` of `d_product`, bfloat16.

    `d_out` is the gradient of its result. Adds to the gradient of its bias, `d_bias`.
    """
    width_padded = d_out.shape[1]
    for c in range(0, width_padded, LANES):
        index, bias = row * width_padded + c, layer * width_padded + c
        value = load(d_out, index) * dropout_scale(dropout, index)
        store_bf16(d_product, r * width_padded + c, value)
        store(d_bias, bias, load(d_bias, bias) + value)
