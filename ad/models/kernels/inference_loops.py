"""The compiled loops of rollouts: new tokens of many environments through a whole transformer.

The arithmetic is that of `transformer.py` in float32, for eight rows (tokens) at a time so that
weights and activations stay in a core's cache. Cached keys and values are bfloat16 (uint16), which
halves the memory traffic that bounds a rollout. tests/test_compiled_decoder.py compares the result
with the plain transformer.
"""

import math

import numpy as np
from numba import njit

from ad.models.kernels.bf16 import load_bf16, to_bf16
from ad.models.kernels.functions import LOG2_E, exp2, gelu
from ad.models.kernels.llvm import LANES
from ad.models.kernels.simd import (
    atomic_fetch_add,
    broadcast,
    load,
    maximum,
    reduce_max,
    reduce_sum,
    store,
)
from ad.runtime.parallel import NUMBA_ENTRY, NUMBA_INLINE

COMPILED_FROM = "8b06ae33"  # SHA-256 of functions.py, bf16.py, simd.py and llvm.py, its beginning
ROWS = 8  # tokens that pass through a layer of `decode` together, a multiple of 4
VECTOR_PAIR = 2 * LANES  # keys or outputs that a loop of `decode` has in registers

_ZERO, _ONE, _INF = (np.float32(x) for x in (0, 1, np.inf))
_EPS = np.float32(1e-5)  # of layer normalization, torch's default


@njit(**NUMBA_ENTRY)
def decode(weights, keys, values, length, tokens, hidden, next_env):
    """Append `tokens` [N, L, C], float32, to the cache; write the last ones' states to `hidden`.

    `weights` are `Weights` in float32, matrices [layers, in, out], with outputs and biases padded
    to a multiple of VECTOR_PAIR. `keys` [layers, N, H, capacity / VECTOR_PAIR, D, VECTOR_PAIR] and
    `values` [layers, N, H, capacity, D padded to a multiple of LANES], bfloat16 as uint16, hold
    `length` tokens and get L more. `hidden` is float32 [N, C]. Threads that call this together
    share `next_env`, int64 [1], 0 at first: the first environment that no thread has taken.
    """
    layers, _, heads, _, head_dim, _ = keys.shape
    width, num_new = tokens.shape[2], tokens.shape[1]
    x, y = _scratch(weights.out.shape[2]), _scratch(width)
    # After the last head there is space for the padding of its values.
    qkv, attn_out = _scratch(weights.qkv.shape[2]), _scratch(width + LANES)
    up = _scratch(weights.up.shape[2])
    scores = np.empty(values.shape[3], np.float32)
    row = stop = 0
    while True:
        if row >= stop:
            env = atomic_fetch_add(next_env, ROWS)
            if env >= len(tokens):
                return
            row, stop = env * num_new, min(env + ROWS, len(tokens)) * num_new
        rows, has_last_token = min(ROWS, stop - row), False
        for r in range(rows):
            env, token = divmod(row + r, num_new)
            has_last_token |= token == num_new - 1
            x[r, :width] = tokens[env, token]
        for layer in range(layers):
            # Of tokens that are not an environment's last, the last layer needs keys and values.
            only_cache = layer == layers - 1 and not has_last_token
            _layer_norm(x, weights.norm_attention[layer], y)
            _linear(y, weights.qkv[layer], weights.qkv_bias[layer], qkv, False)
            for r in range(rows):
                env, token = divmod(row + r, num_new)
                for h in range(heads):
                    k, v, position = keys[layer, env, h], values[layer, env, h], length + token
                    block, column = divmod(position, VECTOR_PAIR)
                    offset = h * head_dim
                    for d in range(head_dim):
                        k[block, d, column] = to_bf16(qkv[r, width + offset + d])
                        v[position, d] = to_bf16(qkv[r, 2 * width + offset + d])
                    if not only_cache:
                        _attend(qkv[r], k, v, position + 1, scores, attn_out[r], offset)
            if only_cache:
                break
            _linear(attn_out, weights.out[layer], weights.out_bias[layer], x, True)
            _layer_norm(x, weights.norm_mlp[layer], y)
            _linear(y, weights.up[layer], weights.up_bias[layer], up, False)
            for i in range(0, up.size, LANES):
                store(up, i, gelu(load(up, i)))
            _linear(up, weights.down[layer], weights.down_bias[layer], x, True)
        if has_last_token:
            _layer_norm(x, weights.norm[0], y)
            for r in range(rows):
                env, token = divmod(row + r, num_new)
                hidden[env] = y[r]  # overwritten until an environment's last token
        row += ROWS


@njit(**NUMBA_INLINE)
def _scratch(width):
    """Return zeros, float32 [ROWS, width]."""
    return np.zeros((ROWS, width), np.float32)


@njit(**NUMBA_INLINE)
def _layer_norm(x, params, y):
    """Write the layer normalization of the first C columns of `x` to `y`; `params` is [2, C]."""
    width = params.shape[1]
    for r in range(ROWS):
        mean = _ZERO
        for c in range(width):
            mean += x[r, c]
        mean /= np.float32(width)
        square = _ZERO
        for c in range(width):
            square += (x[r, c] - mean) ** 2
        scale = _ONE / np.sqrt(square / np.float32(width) + _EPS)
        for c in range(width):
            y[r, c] = (x[r, c] - mean) * scale * params[0, c] + params[1, c]


@njit(**NUMBA_INLINE)
def _linear(x, weight, bias, y, accumulate):
    """Write `x` @ `weight` + `bias` to `y`, or add it, four rows of a vector pair at a time."""
    (inputs, outputs), row_stride = weight.shape, y.shape[1]
    for j in range(0, outputs, VECTOR_PAIR):
        for r in range(0, ROWS, 4):
            index = r * row_stride + j
            a = b = c = d = _load_pair(bias, j)
            if accumulate:
                a = _add_pairs(a, _load_pair(y, index))
                b = _add_pairs(b, _load_pair(y, index + row_stride))
                c = _add_pairs(c, _load_pair(y, index + 2 * row_stride))
                d = _add_pairs(d, _load_pair(y, index + 3 * row_stride))
            for i in range(inputs):
                w = _load_pair(weight, i * outputs + j)
                a = _multiply_add(x[r, i], w, a)
                b = _multiply_add(x[r + 1, i], w, b)
                c = _multiply_add(x[r + 2, i], w, c)
                d = _multiply_add(x[r + 3, i], w, d)
            _store_pair(y, index, a)
            _store_pair(y, index + row_stride, b)
            _store_pair(y, index + 2 * row_stride, c)
            _store_pair(y, index + 3 * row_stride, d)


@njit(**NUMBA_INLINE)
def _attend(qkv, keys, values, num_keys, scores, attn_out, offset):
    """Write one head's attention over `num_keys` keys to `attn_out` [`offset` : `offset` + D].

    The query is `qkv` [`offset` : `offset` + D]; D is even. `scores` [capacity] is scratch memory.
    """
    (_, head_dim, _), head_dim_padded = keys.shape, values.shape[1]
    num_keys_padded = (num_keys + VECTOR_PAIR - 1) // VECTOR_PAIR * VECTOR_PAIR
    scale, zeros = np.float32(1 / math.sqrt(head_dim)) * LOG2_E, broadcast(_ZERO)
    for i in range(0, num_keys_padded, VECTOR_PAIR):
        even = odd = zeros, zeros
        for d in range(0, head_dim, 2):
            index = i * head_dim + d * VECTOR_PAIR
            even_keys = _load_bf16_pair(keys, index)
            even = _multiply_add(qkv[offset + d] * scale, even_keys, even)
            odd_keys = _load_bf16_pair(keys, index + VECTOR_PAIR)
            odd = _multiply_add(qkv[offset + d + 1] * scale, odd_keys, odd)
        _store_pair(scores, i, _add_pairs(even, odd))
    for i in range(num_keys, num_keys_padded):
        scores[i] = -_INF  # padding has weight 0
    lane_max = load(scores, 0)
    for i in range(LANES, num_keys_padded, LANES):
        lane_max = maximum(lane_max, load(scores, i))
    max_score, weight_sum = reduce_max(lane_max), zeros
    for i in range(0, num_keys_padded, LANES):
        weight = exp2(load(scores, i) - max_score)
        store(scores, i, weight)
        weight_sum = weight_sum + weight
    inverse_sum = broadcast(_ONE / reduce_sum(weight_sum))
    for d in range(0, head_dim, LANES):
        a = b = zeros
        for i in range(0, num_keys_padded, 2):
            index = i * head_dim_padded + d
            a = broadcast(scores[i]) * load_bf16(values, index) + a
            b = broadcast(scores[i + 1]) * load_bf16(values, index + head_dim_padded) + b
        store(attn_out, offset + d, (a + b) * inverse_sum)


@njit(**NUMBA_INLINE)
def _load_pair(array, index):
    """Return two vectors of a float32 `array` from `index` on."""
    return load(array, index), load(array, index + LANES)


@njit(**NUMBA_INLINE)
def _load_bf16_pair(array, index):
    """Return two vectors, float32, of a bfloat16 `array` from `index` on."""
    return load_bf16(array, index), load_bf16(array, index + LANES)


@njit(**NUMBA_INLINE)
def _store_pair(array, index, pair):
    """Store two vectors in a float32 `array` from `index` on."""
    store(array, index, pair[0])
    store(array, index + LANES, pair[1])


@njit(**NUMBA_INLINE)
def _add_pairs(a, b):
    """Return the sum of two pairs of vectors."""
    return a[0] + b[0], a[1] + b[1]


@njit(**NUMBA_INLINE)
def _multiply_add(number, pair, total):
    """Return `total` + `number` * `pair`."""
    factor = broadcast(number)
    return factor * pair[0] + total[0], factor * pair[1] + total[1]
