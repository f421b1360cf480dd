"""The compiled loops of training: a transformer's blocks forward and backward (`training.py`).

B windows of L tokens are N = B L rows; blocks of `ROW_BLOCK` rows pass through successive
operations in a core's cache. C is the width, F the width of the MLP's hidden layer, H the number of
heads and D = C / H, even, the width of a head. Rows of all arrays are padded to a multiple of
`LANES` numbers: with zeros, or with numbers that only meet weights that are 0. bfloat16 arrays
(uint16) of N rows are padded to a multiple of `ROW_BLOCK` rows, plus 2 * `LANES` rows. Words
(uint32) hold two bfloat16 numbers.

Matrix products take bfloat16; everything else is float32. Dropout masks are recomputed in the
backward pass from a hash of the index. tests/test_compiled_blocks.py compares the result with the
plain transformer.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from ad.models.kernels.attention_loops import (
    AttentionWorkspace,
    HeadSlice,
    attention_backward,
    attention_forward,
)
from ad.models.kernels.bf16 import load_bf16, store_bf16, store_bf16_pairs, transpose16
from ad.models.kernels.functions import Dropout, gelu_poly, gelu_poly_and_derivative
from ad.models.kernels.layer_loops import (
    ROW_PADDING,
    accumulate_weight_grad,
    add_residual,
    add_residual_backward,
    layer_norm,
    layer_norm_backward,
    layer_norm_from_stats,
    layer_norm_stats,
    layer_norm_vector,
    linear,
)
from ad.models.kernels.llvm import LANES
from ad.models.kernels.simd import load, store
from ad.runtime.parallel import NUMBA_ENTRY, NUMBA_INLINE

# SHA-256 of functions.py, attention_loops.py, layer_loops.py, gemm.py, bf16.py, simd.py, llvm.py,
# its beginning
COMPILED_FROM = "2f55243f"
ROW_BLOCK = 128  # rows that pass through a block together, a multiple of ROW_MULTIPLE
COLUMN_BLOCK = 256  # columns of a product that are consumed before the next are computed

_ZERO = np.float32(0)
_DROP_WEIGHTS, _DROP_ATTENTION, _DROP_MLP = range(3)  # places of `DropoutKeys`


class PackedMatrix(NamedTuple):
    """A linear map [out, in] of each layer in words, as `gemm.py` takes it: see `pack`."""

    forward: np.ndarray  # [layers, in / 2, out + ROW_PADDING], pairs of inputs
    backward: np.ndarray  # [layers, out / 2, in + ROW_PADDING], pairs of outputs


class Workspace(NamedTuple):
    """Scratch memory of a thread, bfloat16 but where said otherwise; zeros at first."""

    normed: np.ndarray  # [ROW_BLOCK, C], result of a layer normalization
    hidden: np.ndarray  # [ROW_BLOCK, F], after GELU
    d_branch: np.ndarray  # [ROW_BLOCK, C], gradient of what a block adds to the residual stream
    d_up: np.ndarray  # [ROW_BLOCK, F]
    product: np.ndarray  # float32 [ROW_BLOCK, C or COLUMN_BLOCK], of a linear map
    dy_pairs: np.ndarray  # words [ROW_BLOCK / 2 * (widest + ROW_PADDING)], pairs of rows
    x_pairs: np.ndarray  # words [ROW_BLOCK / 2 * (widest + ROW_PADDING)], pairs of rows
    group_rows: int  # rows of the windows that pass through all blocks together
    d_attn_out: np.ndarray  # [group_rows, C]
    d_qkv: np.ndarray  # [group_rows, 3 C]
    attention: AttentionWorkspace


class Saved(NamedTuple):
    """Activations of N rows saved for the backward pass, and the thread's workspace."""

    x: np.ndarray  # float32 [layers, N, C], residual stream that enters a block
    x_stats: np.ndarray  # float32 [layers, N, 2], mean and 1 / deviation
    qkv: np.ndarray  # bfloat16 [layers, N, 3 C]
    softmax_stats: np.ndarray  # float32 [layers, H, 2, N + padding], see `attention_forward`
    attn_out: np.ndarray  # bfloat16 [layers, N, C], before the output projection
    x_mid: np.ndarray  # float32 [layers, N, C], residual stream after attention
    x_mid_stats: np.ndarray  # float32 [layers, N, 2]
    up: np.ndarray  # bfloat16 [layers, N, F], without its bias
    x_last: np.ndarray  # float32 [N, C], residual stream after the last block
    x_last_stats: np.ndarray  # float32 [N, 2]
    workspace: Workspace


class DropoutKeys(NamedTuple):
    """Dropout of all layers at three places: attention weights, attention's output, the MLP's."""

    keys: np.ndarray  # uint32 [layers, 3, 2]
    threshold: np.ndarray  # uint32 [3], see `Dropout`
    scale: np.ndarray  # float32 [3], see `Dropout`


@njit(**NUMBA_ENTRY)
def pack(matrix, rows, forward, backward):
    """Write the words of a padded `matrix` [layers, out, in], float32, as in `PackedMatrix`.

    `rows` [out, in], bfloat16, is scratch memory for one layer.
    """
    layers, outputs, inputs = matrix.shape
    for layer in range(layers):
        layer_offset = layer * outputs * inputs
        for o in range(0, outputs, 2):
            for i in range(0, inputs, LANES):
                even = load(matrix, layer_offset + o * inputs + i)
                odd = load(matrix, layer_offset + (o + 1) * inputs + i)
                row = layer * (outputs // 2) + o // 2
                store_bf16_pairs(backward, row * (inputs + ROW_PADDING) + i, even, odd)
                store_bf16(rows, o * inputs + i, even)
                store_bf16(rows, (o + 1) * inputs + i, odd)
        words = rows.view(np.uint32)
        num_words = inputs // 2
        for o in range(0, outputs, LANES):
            for i in range(0, num_words - num_words % LANES, LANES):
                target = (layer * num_words + i) * (outputs + ROW_PADDING) + o
                source = words, o * num_words + i, num_words
                transpose16(*source, forward, target, outputs + ROW_PADDING)
            for i in range(num_words - num_words % LANES, num_words):
                for r in range(o, o + LANES):
                    forward[layer, i, r] = words[r, i]


@njit(**NUMBA_ENTRY)
def forward(weights, x, seq_len, width, heads, saved, dropout_keys, out):
    """Write the normalized hidden states of `x` [N, C] to `out` [N, C], float32; fill `saved`.

    `weights` are `Weights` whose matrices are `PackedMatrix`. `width` is C without the padding of
    `x` and `out`. `dropout_keys` is None for no dropout.
    """
    (num_rows, width_padded), layers = x.shape, len(saved.x)
    group_rows = saved.workspace.group_rows
    saved.x[0] = x
    for first in range(0, num_rows, group_rows):
        last = min(first + group_rows, num_rows)
        for layer in range(layers):
            x_next = saved.x[layer + 1] if layer + 1 < layers else saved.x_last
            for start in range(first, last, ROW_BLOCK):
                rows = start, min(ROW_BLOCK, last - start)
                _qkv_forward(weights, layer, width, saved, *rows)
            dropout = _select_dropout(dropout_keys, layer, _DROP_WEIGHTS)
            results = saved.softmax_stats[layer], saved.attn_out[layer]
            for number in range((last - first) // seq_len * heads):
                part = _head_slice(first, number, seq_len, width, heads)
                workspace = saved.workspace.attention
                attention_forward(saved.qkv[layer], part, dropout, *results, workspace)
            for start in range(first, last, ROW_BLOCK):
                rows = start, min(ROW_BLOCK, last - start)
                _attn_out_and_mlp_forward(weights, layer, width, saved, *rows, dropout_keys, x_next)
        for n in range(first, last):
            layer_norm_stats(saved.x_last, n, width, saved.x_last_stats)
            for c in range(0, width_padded, LANES):
                row = saved.x_last, n, c, weights.norm, 0, saved.x_last_stats
                store(out, n * width_padded + c, layer_norm_vector(*row))


@njit(**NUMBA_INLINE)
def _qkv_forward(weights, layer, width, saved, start, rows):
    """Write queries, keys and values of `rows` rows from `start` on to `saved.qkv`."""
    normed, product = saved.workspace.normed, saved.workspace.product
    qkv, qkv_width = saved.qkv[layer], saved.qkv.shape[2]
    for r in range(rows):
        row = saved.x[layer], start + r, width, weights.norm_attention, layer
        layer_norm(*row, normed, r, saved.x_stats[layer])
    for first in range(0, qkv_width, COLUMN_BLOCK):
        matrix = weights.qkv.forward[layer]
        last = linear(normed, 0, rows, matrix, first, COLUMN_BLOCK, product)
        for r in range(rows):
            target, source = (start + r) * qkv_width, r * product.shape[1] - first
            for c in range(first, last, LANES):
                value = load(product, source + c) + load(weights.qkv_bias, layer * qkv_width + c)
                store_bf16(qkv, target + c, value)


@njit(**NUMBA_INLINE)
def _attn_out_and_mlp_forward(weights, layer, width, saved, start, rows, dropout_keys, x_next):
    """Run a block from the output of attention to `x_next` for `rows` rows from `start` on."""
    workspace, up, hidden_width = saved.workspace, saved.up[layer], saved.up.shape[2]
    normed, hidden, product = workspace.normed, workspace.hidden, workspace.product
    width_padded, x, x_mid = normed.shape[1], saved.x[layer], saved.x_mid[layer]
    dropout = _select_dropout(dropout_keys, layer, _DROP_ATTENTION)
    linear(saved.attn_out[layer], start, rows, weights.out.forward[layer], 0, width_padded, product)
    for r in range(rows):
        add_residual(x, start + r, product, r, weights.out_bias, layer, dropout, x_mid)
        row = x_mid, start + r, width, weights.norm_mlp, layer
        layer_norm(*row, normed, r, saved.x_mid_stats[layer])
    for first in range(0, hidden_width, COLUMN_BLOCK):
        matrix = weights.up.forward[layer]
        last = linear(normed, 0, rows, matrix, first, COLUMN_BLOCK, product)
        for r in range(rows):
            target, source = (start + r) * hidden_width, r * product.shape[1] - first
            for f in range(first, last, LANES):
                store_bf16(up, target + f, load(product, source + f))
                bias = load(weights.up_bias, layer * hidden_width + f)
                value = load_bf16(up, target + f) + bias
                store_bf16(hidden, r * hidden_width + f, gelu_poly(value))
    linear(hidden, 0, rows, weights.down.forward[layer], 0, width_padded, product)
    dropout = _select_dropout(dropout_keys, layer, _DROP_MLP)
    for r in range(rows):
        add_residual(x_mid, start + r, product, r, weights.down_bias, layer, dropout, x_next)


@njit(**NUMBA_ENTRY)
def backward(weights, seq_len, width, heads, saved, dropout_keys, d_out, dx, gradients):
    """Write the gradient of `x` to `dx` [N, C] and add those of the parameters to `gradients`.

    `d_out` [N, C] is the gradient of the hidden states. `gradients` are `Weights` in float32, with
    matrices as [layers, out, in]. The other arguments are those of `forward`.
    """
    num_rows, workspace, group_rows = len(dx), saved.workspace, saved.workspace.group_rows
    for first in range(0, num_rows, group_rows):
        last = min(first + group_rows, num_rows)
        dx[first:last] = _ZERO
        for n in range(first, last):
            row = saved.x_last, n, width, saved.x_last_stats, weights.norm, 0
            layer_norm_backward(d_out, n, *row, dx, gradients.norm)
        for layer in range(len(saved.x) - 1, -1, -1):
            for start in range(first, last, ROW_BLOCK):
                rows, local_start = (start, min(ROW_BLOCK, last - start)), start - first
                _mlp_backward(weights, layer, width, saved, *rows, dropout_keys, dx, gradients)
                results = local_start, dropout_keys, dx, gradients
                _attn_out_backward(weights, layer, saved, *rows, *results)
            dropout = _select_dropout(dropout_keys, layer, _DROP_WEIGHTS)
            results = saved.softmax_stats[layer], saved.attn_out[layer]
            for number in range((last - first) // seq_len * heads):
                part = _head_slice(first, number, seq_len, width, heads)
                grads = workspace.d_attn_out, workspace.d_qkv, workspace.attention
                attention_backward(saved.qkv[layer], part, dropout, *results, *grads)
            for start in range(first, last, ROW_BLOCK):
                rows, local_start = (start, min(ROW_BLOCK, last - start)), start - first
                _qkv_backward(weights, layer, width, saved, *rows, local_start, dx, gradients)


@njit(**NUMBA_INLINE)
def _mlp_backward(weights, layer, width, saved, start, rows, dropout_keys, dx, gradients):
    """Propagate `dx` of `rows` rows from `start` on through the MLP and its normalization."""
    workspace, up, hidden_width = saved.workspace, saved.up[layer], saved.up.shape[2]
    normed, d_branch, d_up = workspace.normed, workspace.d_branch, workspace.d_up
    hidden, product = workspace.hidden, workspace.product
    x_mid, width_padded = saved.x_mid[layer], dx.shape[1]
    dropout = _select_dropout(dropout_keys, layer, _DROP_MLP)
    for r in range(rows):
        add_residual_backward(dx, start + r, dropout, d_branch, r, gradients.down_bias, layer)
        row = x_mid, start + r, weights.norm_mlp, layer
        layer_norm_from_stats(*row, normed, r, saved.x_mid_stats[layer])
    partner = slice(rows, rows + rows % 2)  # the partner of an odd last row must be 0
    d_branch[partner] = 0
    d_up[partner] = 0
    for first in range(0, hidden_width, COLUMN_BLOCK):
        matrix = weights.down.backward[layer]
        last = linear(d_branch, 0, rows, matrix, first, COLUMN_BLOCK, product)
        for r in range(rows):
            target, source = r * hidden_width, r * product.shape[1] - first
            for f in range(first, last, LANES):
                bias = layer * hidden_width + f
                value = load_bf16(up, (start + r) * hidden_width + f)
                value = value + load(weights.up_bias, bias)
                value, derivative = gelu_poly_and_derivative(value)
                store_bf16(hidden, target + f, value)
                d_value = load(product, source + f) * derivative
                store_bf16(d_up, target + f, d_value)
                store(gradients.up_bias, bias, load(gradients.up_bias, bias) + d_value)
    accumulate_weight_grad(d_branch, 0, hidden, 0, rows, workspace, gradients.down[layer])
    accumulate_weight_grad(d_up, 0, normed, 0, rows, workspace, gradients.up[layer])
    linear(d_up, 0, rows, weights.up.backward[layer], 0, width_padded, product)
    for r in range(rows):
        row = x_mid, start + r, width, saved.x_mid_stats[layer]
        layer_norm_backward(product, r, *row, weights.norm_mlp, layer, dx, gradients.norm_mlp)


@njit(**NUMBA_INLINE)
def _attn_out_backward(
    weights, layer, saved, start, rows, local_start, dropout_keys, dx, gradients
):
    """Write the gradient of attention's output to `d_attn_out`, from row `local_start` on.

    Relies on the zeros that `_mlp_backward` wrote after an odd last row.
    """
    workspace, width_padded = saved.workspace, dx.shape[1]
    dropout = _select_dropout(dropout_keys, layer, _DROP_ATTENTION)
    d_branch, product, attn_out = workspace.d_branch, workspace.product, saved.attn_out[layer]
    for r in range(rows):
        add_residual_backward(dx, start + r, dropout, d_branch, r, gradients.out_bias, layer)
    accumulate_weight_grad(d_branch, 0, attn_out, start, rows, workspace, gradients.out[layer])
    linear(d_branch, 0, rows, weights.out.backward[layer], 0, width_padded, product)
    for r in range(rows):
        for c in range(0, width_padded, LANES):
            target = (local_start + r) * width_padded + c
            store_bf16(workspace.d_attn_out, target, load(product, r * product.shape[1] + c))


@njit(**NUMBA_INLINE)
def _qkv_backward(weights, layer, width, saved, start, rows, local_start, dx, gradients):
    """Add to `dx` the gradient that passes through queries, keys and values.

    Theirs is in `d_qkv`, from row `local_start` on.
    """
    workspace, d_qkv, width_padded = saved.workspace, saved.workspace.d_qkv, dx.shape[1]
    normed, product, qkv_width = workspace.normed, workspace.product, saved.qkv.shape[2]
    local_stop = local_start + rows
    d_qkv[local_stop : local_stop + rows % 2] = 0  # the partner of an odd last row
    for r in range(rows):
        for c in range(0, qkv_width, LANES):
            value = load_bf16(d_qkv, (local_start + r) * qkv_width + c)
            bias = layer * qkv_width + c
            store(gradients.qkv_bias, bias, load(gradients.qkv_bias, bias) + value)
        row = saved.x[layer], start + r, weights.norm_attention, layer
        layer_norm_from_stats(*row, normed, r, saved.x_stats[layer])
    accumulate_weight_grad(d_qkv, local_start, normed, 0, rows, workspace, gradients.qkv[layer])
    linear(d_qkv, local_start, rows, weights.qkv.backward[layer], 0, width_padded, product)
    norm, d_norm = weights.norm_attention, gradients.norm_attention
    for r in range(rows):
        row = saved.x[layer], start + r, width, saved.x_stats[layer]
        layer_norm_backward(product, r, *row, norm, layer, dx, d_norm)


@njit(**NUMBA_INLINE)
def _head_slice(first, number, seq_len, width, heads):
    """Return the `HeadSlice` with this `number` among the heads of the windows from `first` on."""
    window, head = divmod(number, heads)
    local_row = window * seq_len
    batch_head = first // seq_len * heads + number
    start = first + local_row
    return HeadSlice(start, local_row, seq_len, width, width // heads, head, batch_head)


@njit(**NUMBA_INLINE)
def _select_dropout(dropout_keys, layer, place):
    """Return the `Dropout` of a `place` (0 to 2) of a layer, None if `dropout_keys` is None."""
    if dropout_keys is None:
        return None
    keys = dropout_keys.keys[layer, place]
    return Dropout(keys[0], keys[1], dropout_keys.threshold[place], dropout_keys.scale[place])
