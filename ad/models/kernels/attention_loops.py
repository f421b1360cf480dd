"""Causal attention of `training_loops.py`, forward and backward, of one head of one window.

`LANES` queries go through it together, each in a SIMD lane of its own, so that the maximum, the sum
and the weights of all of them are operations between vectors. Weights are not saved but recomputed
from each query's maximum score and sum (Dao et al. 2022, section 3.1). Keys that follow the last
query of a vector are skipped.

Rows of `qkv` [N + padding, 3 C], bfloat16, hold queries, keys and values of all heads. A window's
last queries may share a vector with rows of the next window; the results of those lanes are
discarded.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from ad.models.kernels.bf16 import (
    from_bf16,
    load_bf16,
    store_bf16,
    store_bf16_pairs,
    to_bf16,
    transpose16,
)
from ad.models.kernels.functions import LOG2_E, dropout_scale, exp2
from ad.models.kernels.gemm import gemm, gemm_accumulate
from ad.models.kernels.layer_loops import interleave_rows
from ad.models.kernels.llvm import LANES
from ad.models.kernels.simd import (
    broadcast,
    load,
    mask_head,
    mask_tail,
    maximum,
    reciprocal,
    reduce_sum,
    store,
)
from ad.runtime.parallel import NUMBA_INLINE

QUERY_BLOCK = 64  # queries that add to the gradients of keys and values at once; in whole vectors

_ZERO, _ONE, _INF = (np.float32(x) for x in (0, 1, np.inf))


class HeadSlice(NamedTuple):
    """One head of one window: its rows and columns."""

    start: int  # row of the window's first token
    local_row: int  # that row in the arrays of gradients
    seq_len: int  # L
    width: int  # C
    head_dim: int  # D, even
    head: int  # 0 to H - 1
    batch_head: int  # number of (window, head), counted over all windows


class AttentionWorkspace(NamedTuple):
    """Scratch memory for one head of one window, zeros at first.

    L and D are padded to multiples of `LANES`. Transposed arrays and `token_pairs` stay 0 beyond
    L; padding beyond D is never used. Words (uint32) hold two bfloat16 numbers.
    """

    queries_t: np.ndarray  # words [D / 2, L]
    d_out_t: np.ndarray  # words [D / 2, L], gradient of the head's output
    token_pairs: np.ndarray  # words [3, L / 2 * D], pairs of tokens: v, or q, k and d_out
    scores: np.ndarray  # float32 [L, LANES], of keys and a vector of queries
    d_weights: np.ndarray  # float32 [QUERY_BLOCK, LANES], gradient of some keys' weights
    key_pairs: np.ndarray  # words [L / 2, LANES], pairs of keys: weights, or d_scores
    out: np.ndarray  # float32 [LANES, D], output, or gradient of queries
    delta: np.ndarray  # float32 [LANES], scaled dot product of a query's output and its gradient
    weights: np.ndarray  # bfloat16 [L, QUERY_BLOCK], after dropout
    d_scores: np.ndarray  # bfloat16 [L, QUERY_BLOCK], divided by sqrt(D)
    dk: np.ndarray  # float32 [L, D]
    dv: np.ndarray  # float32 [L, D]


@njit(**NUMBA_INLINE)
def attention_forward(qkv, head_slice, dropout, softmax_stats, attn_out, workspace):
    """Write the output of one head and window to `attn_out` [N, C], bfloat16.

    `head_slice` is a `HeadSlice`. Fills the head's row of `softmax_stats` [H, 2, N + padding],
    float32: each query's maximum score times log2(e) / sqrt(D), and 1 / its sum of weights.
    """
    start, seq_len, head_dim = head_slice.start, head_slice.seq_len, head_slice.head_dim
    head, width, column = head_slice.head, head_slice.width, head_slice.head * head_dim
    words, row_stride, scores = qkv.view(np.uint32), qkv.shape[1] // 2, workspace.scores
    seq_len_padded, head_dim_padded = workspace.queries_t.shape[1], workspace.dk.shape[1]
    values, out = workspace.token_pairs[0], workspace.out
    _transpose_rows(words, start, seq_len, column // 2, head_dim // 2, workspace.queries_t)
    _interleave_tokens(qkv, start, seq_len, 2 * width + column, values, head_dim_padded)
    scale, keys_offset = _log2_scale(head_dim), start * row_stride + (width + column) // 2
    for i in range(0, seq_len, LANES):
        num_keys, mask_index = i + LANES, head_slice.batch_head * seq_len * seq_len + i
        keys = words, keys_offset, row_stride, 1
        queries = workspace.queries_t, i, seq_len_padded
        gemm(keys, queries, head_dim // 2, (scores, 0, LANES), num_keys, LANES)
        max_score, weight_sum = _causal_mask_and_max(scores, i) * scale, broadcast(_ZERO)
        for j in range(0, num_keys, 2):
            even = exp2(load(scores, j * LANES) * scale - max_score)
            odd = exp2(load(scores, j * LANES + LANES) * scale - max_score)
            weight_sum = weight_sum + (even + odd)
            even = even * dropout_scale(dropout, mask_index + j * seq_len)
            odd = odd * dropout_scale(dropout, mask_index + j * seq_len + seq_len)
            store_bf16_pairs(workspace.key_pairs, j // 2 * LANES, even, odd)
        stats_index = 2 * head * softmax_stats.shape[2] + start + i
        store(softmax_stats, stats_index, max_score)
        store(softmax_stats, stats_index + softmax_stats.shape[2], reciprocal(weight_sum))
        factors = (workspace.key_pairs, 0, 1, LANES), (values, 0, head_dim_padded)
        gemm(*factors, num_keys // 2, (out, 0, head_dim_padded), LANES, head_dim_padded)
        for r in range(min(LANES, seq_len - i)):
            row = start + i + r
            _store_row(out, r, softmax_stats[head, 1, row], head_dim, attn_out, row, column)


@njit(**NUMBA_INLINE)
def attention_backward(
    qkv, head_slice, dropout, softmax_stats, attn_out, d_attn_out, d_qkv, workspace
):
    """Write the gradients of queries, keys and values of one head and window to `d_qkv`.

    With scores S = Q Kᵀ / sqrt(D), weights P and output O = P V: dV = Pᵀ dO, dP = dO Vᵀ,
    dS = P ∘ (dP - rowsum(dO ∘ O)), dQ = dS K / sqrt(D) and dK = dSᵀ Q / sqrt(D) (Dao et al. 2022,
    appendix B.2); dropout multiplies P and dP by its mask.

    `d_attn_out` is the gradient of `attn_out`. The window's rows begin at `start` in `qkv` and
    `attn_out`, and at `local_row` in gradients.
    """
    start, local_row, seq_len = head_slice.start, head_slice.local_row, head_slice.seq_len
    head_dim, width = head_slice.head_dim, head_slice.width
    column = head_slice.head * head_dim
    (seq_len_padded, head_dim_padded), out = workspace.dk.shape, workspace.out
    dk, dv = workspace.dk, workspace.dv
    queries, keys = workspace.token_pairs[0], workspace.token_pairs[1]
    d_out = workspace.token_pairs[2]
    qkv_words, d_words = qkv.view(np.uint32), d_attn_out.view(np.uint32)
    _transpose_rows(qkv_words, start, seq_len, column // 2, head_dim // 2, workspace.queries_t)
    _transpose_rows(d_words, local_row, seq_len, column // 2, head_dim // 2, workspace.d_out_t)
    _interleave_tokens(qkv, start, seq_len, column, queries, head_dim_padded)
    _interleave_tokens(qkv, start, seq_len, width + column, keys, head_dim_padded)
    _interleave_tokens(d_attn_out, local_row, seq_len, column, d_out, head_dim_padded)
    dk[:] = _ZERO
    dv[:] = _ZERO
    for block in range(0, seq_len, QUERY_BLOCK):
        stop = min(block + QUERY_BLOCK, seq_len_padded)
        for i in range(block, stop, LANES):
            arrays = softmax_stats, attn_out, d_attn_out, workspace
            _scores_backward(qkv, head_slice, i, i - block, dropout, *arrays)
            factors = (workspace.key_pairs, 0, 1, LANES), (keys, 0, head_dim_padded)
            gemm(*factors, (i + LANES) // 2, (out, 0, head_dim_padded), LANES, head_dim_padded)
            for r in range(min(LANES, seq_len - i)):
                _store_row(out, r, _ONE, head_dim, d_qkv, local_row + i + r, column)
        for j in range(0, stop, LANES):
            skipped = max(j - block, 0)  # queries of the block that precede these keys
            word = j * (QUERY_BLOCK // 2) + skipped // 2
            pair = (block + skipped) // 2 * head_dim_padded
            num_pairs = (stop - block - skipped) // 2
            for a, b, grad in (
                (workspace.d_scores, queries, dk),
                (workspace.weights, d_out, dv),
            ):
                factors = (a, word, QUERY_BLOCK // 2, 1), (b, pair, head_dim_padded)
                result = grad, j * head_dim_padded, head_dim_padded
                gemm_accumulate(*factors, num_pairs, result, LANES, head_dim_padded)
    for j in range(seq_len):
        _store_row(dk, j, _ONE, head_dim, d_qkv, local_row + j, width + column)
        _store_row(dv, j, _ONE, head_dim, d_qkv, local_row + j, 2 * width + column)


@njit(**NUMBA_INLINE)
def _scores_backward(
    qkv, head_slice, i, column, dropout, softmax_stats, attn_out, d_attn_out, workspace
):
    """Recompute the weights of the queries from `i` on, and compute the gradients of their scores.

    Both are written to `workspace`: from `column` on of `weights` and `d_scores`, and the gradients
    also to `key_pairs`.
    """
    start, seq_len, head_dim = head_slice.start, head_slice.seq_len, head_slice.head_dim
    head_column = head_slice.head * head_dim
    words, row_stride = qkv.view(np.uint32), qkv.shape[1] // 2
    seq_len_padded = workspace.queries_t.shape[1]
    scale, num_queries, query_row = _ONE / np.sqrt(np.float32(head_dim)), seq_len - i, start + i
    for r in range(min(LANES, num_queries)):
        rows = d_attn_out, head_slice.local_row + i + r, attn_out, query_row + r
        workspace.delta[r] = _dot(*rows, head_column, head_dim) * scale
    stats_index = 2 * head_slice.head * softmax_stats.shape[2] + query_row
    max_score = mask_tail(load(softmax_stats, stats_index), num_queries, _ZERO)
    sum_index = stats_index + softmax_stats.shape[2]
    inverse_sum = mask_tail(load(softmax_stats, sum_index), num_queries, _ZERO)
    delta = mask_tail(load(workspace.delta, 0), num_queries, _ZERO)
    queries = max_score, inverse_sum, delta, _log2_scale(head_dim), scale
    for block in range(0, i + LANES, QUERY_BLOCK):
        block_row = (start + block) * row_stride
        num_keys = min(QUERY_BLOCK, i + LANES - block)
        for first, transposed, result in (
            (head_slice.width + head_column, workspace.queries_t, workspace.scores),
            (2 * head_slice.width + head_column, workspace.d_out_t, workspace.d_weights),
        ):
            rows = words, block_row + first // 2, row_stride, 1
            columns = transposed, i, seq_len_padded
            gemm(rows, columns, head_dim // 2, (result, 0, LANES), num_keys, LANES)
        for j in range(0, num_keys, 2):
            key = block + j
            index, target = (head_slice.batch_head * seq_len + key) * seq_len + i, key * QUERY_BLOCK
            even, d_even = _score_backward(workspace, j, dropout, index, key - i, *queries)
            index += seq_len
            odd, d_odd = _score_backward(workspace, j + 1, dropout, index, key + 1 - i, *queries)
            store_bf16(workspace.weights, target + column, even)
            store_bf16(workspace.weights, target + QUERY_BLOCK + column, odd)
            store_bf16(workspace.d_scores, target + column, d_even)
            store_bf16(workspace.d_scores, target + QUERY_BLOCK + column, d_odd)
            store_bf16_pairs(workspace.key_pairs, key // 2 * LANES, d_even, d_odd)


@njit(**NUMBA_INLINE)
def _score_backward(
    workspace, j, dropout, index, first_query, max_score, inverse_sum, delta, log2_scale, scale
):
    """Return the weights of one key, after dropout, and the gradients of its scores.

    `j` is the key's row in `scores` and `d_weights`, `first_query` the lane of the first query that
    sees it, which may be negative.
    """
    factor = dropout_scale(dropout, index)
    weight = exp2(load(workspace.scores, j * LANES) * log2_scale - max_score) * inverse_sum
    d_score = weight * (load(workspace.d_weights, j * LANES) * factor * scale - delta)
    weight = weight * factor
    if first_query >= 0:
        return mask_head(weight, first_query, _ZERO), mask_head(d_score, first_query, _ZERO)
    return weight, d_score


@njit(**NUMBA_INLINE)
def _causal_mask_and_max(scores, i):
    """Set `scores` of keys that follow their query to -inf, and return the queries' maxima.

    The queries are those from `i` on.
    """
    result = broadcast(-_INF)
    for j in range(i):
        result = maximum(result, load(scores, j * LANES))
    for j in range(i, i + LANES):
        score = mask_head(load(scores, j * LANES), j - i, -_INF)
        store(scores, j * LANES, score)
        result = maximum(result, score)
    return result


@njit(**NUMBA_INLINE)
def _log2_scale(head_dim):
    """Return log2(e) / sqrt(D), the scale of scores whose weights are powers of 2."""
    return LOG2_E / np.sqrt(np.float32(head_dim))


@njit(**NUMBA_INLINE)
def _transpose_rows(words, start, seq_len, column, num_columns, transposed):
    """Transpose `num_columns` words of a window's rows, from `column` on, to `transposed`.

    `transposed` is [num_columns + padding, L + padding], with zeros beyond L.
    """
    row_stride, seq_len_padded = words.shape[1], transposed.shape[1]
    for c in range(0, num_columns, LANES):
        for j in range(0, seq_len, LANES):
            source, target = (start + j) * row_stride + column + c, c * seq_len_padded + j
            transpose16(words, source, row_stride, transposed, target, seq_len_padded)
    for c in range(num_columns):
        for j in range(seq_len, seq_len_padded):
            transposed[c, j] = 0  # overwrites rows of the next window


@njit(**NUMBA_INLINE)
def _interleave_tokens(x, start, seq_len, column, pairs, head_dim_padded):
    """Write words of two tokens of a window each to `pairs`, with 0 for a missing last token."""
    interleave_rows(x, start, seq_len, column, head_dim_padded, pairs, head_dim_padded)
    if seq_len % 2:
        for c in range(head_dim_padded):
            pairs[seq_len // 2 * head_dim_padded + c] &= np.uint32(0xFFFF)


@njit(**NUMBA_INLINE)
def _dot(a, a_row, b, b_row, column, head_dim):
    """Return the dot product of `head_dim` bfloat16 numbers of a row of `a` and of `b`, float32."""
    a_index, b_index = a_row * a.shape[1] + column, b_row * b.shape[1] + column
    whole, sums = head_dim // LANES * LANES, broadcast(_ZERO)
    for c in range(0, whole, LANES):
        sums = load_bf16(a, a_index + c) * load_bf16(b, b_index + c) + sums
    result = reduce_sum(sums)
    for c in range(column + whole, column + head_dim):
        result += from_bf16(a[a_row, c]) * from_bf16(b[b_row, c])
    return result


@njit(**NUMBA_INLINE)
def _store_row(values, r, factor, head_dim, x, row, column):
    """Write `factor` times row `r` of `values`, float32, to a `row` of `x`, bfloat16."""
    whole = head_dim // LANES * LANES
    for c in range(0, whole, LANES):
        value = load(values, r * values.shape[1] + c) * factor
        store_bf16(x, row * x.shape[1] + column + c, value)
    for c in range(whole, head_dim):
        x[row, column + c] = to_bf16(values[r, c] * factor)
