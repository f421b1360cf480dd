"""The compiled loops of rollouts: new tokens of many lanes through a whole transformer.

The arithmetic is that of `transformer.py` in float32, for eight rows (tokens) at a time so that
weights and activations stay in a core's own cache; keys and values are kept as bfloat16 (uint16),
half the bytes that a rollout waits for. tests/test_decoder.py holds it against the plain
transformer.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from ad.models.kernels.functions import LOG2_E, exp2, gelu
from ad.models.kernels.simd import (
    FLOATS,
    larger,
    largest,
    load,
    load_half,
    rounded,
    spread,
    store,
    take,
    total,
)
from ad.runtime.parallel import HELPER, LOOP

COMPILED_FROM = "b0f1c07b"  # SHA-256 of functions.py and simd.py, its beginning
ROWS = 8  # tokens that go through a layer of `read` together; divides by 4
PAIR = 2 * FLOATS  # keys or outputs that a loop of `read` has in its registers

_ZERO, _ONE, _INF = (np.float32(x) for x in (0, 1, np.inf))
_EPS = np.float32(1e-5)  # of the layer normalisation, torch's default


class Weights(NamedTuple):
    """A transformer's, float32, by layer: norms as scale and shift [2, C], linears as [in, out].

    The outputs of linears, also those of biases, go on with zeros to a multiple of `PAIR`.
    """

    norm_attention: np.ndarray  # [layers, 2, C]
    qkv: np.ndarray  # [layers, C, 3 C]
    qkv_bias: np.ndarray
    out: np.ndarray  # [layers, C, C]
    out_bias: np.ndarray
    norm_mlp: np.ndarray  # [layers, 2, C]
    up: np.ndarray  # [layers, C, F]
    up_bias: np.ndarray
    down: np.ndarray  # [layers, F, C]
    down_bias: np.ndarray
    norm: np.ndarray  # [2, C]


@njit(**LOOP)
def read(weights, keys, values, length, tokens, hidden, taken):
    """Read `tokens` [N, L, C] of lanes that nobody has `taken` yet, until there are none.

    `keys` [layers, N, H, capacity / PAIR, D, PAIR] and `values` [layers, N, H, capacity, D and
    more, to a multiple of FLOATS], bfloat16 as uint16, hold `length` tokens and get L more;
    `hidden`, float32 [N, C], gets the last token's. `taken`, int64 [1]: how many lanes are, by all
    threads that call this together.
    """
    layers, _, heads, _, head_width, _ = keys.shape
    width, fresh = tokens.shape[2], tokens.shape[1]
    x, y = _room(weights.out.shape[2]), _room(width)
    # Behind the last head there is room for what its values go on with.
    qkv, mixed, up = _room(weights.qkv.shape[2]), _room(width + FLOATS), _room(weights.up.shape[2])
    scores = np.empty(values.shape[3], np.float32)
    row = stop = 0
    while True:
        if row >= stop:
            lane = take(taken, ROWS)
            if lane >= len(tokens):
                return
            row, stop = lane * fresh, min(lane + ROWS, len(tokens)) * fresh
        rows, wanted = min(ROWS, stop - row), False
        for r in range(rows):
            lane, token = divmod(row + r, fresh)
            wanted |= token == fresh - 1
            for c in range(width):
                x[r, c] = tokens[lane, token, c]
        for layer in range(layers):
            # Of tokens that are not a lane's last, the last layer is asked for keys and values.
            enough = layer == layers - 1 and not wanted
            _normalise(x, weights.norm_attention[layer], y)
            _linear(y, weights.qkv[layer], weights.qkv_bias[layer], qkv, False)
            for r in range(rows):
                lane, token = divmod(row + r, fresh)
                for h in range(heads):
                    k, v, place = keys[layer, lane, h], values[layer, lane, h], length + token
                    block, column = divmod(place, PAIR)
                    first = h * head_width
                    for d in range(head_width):
                        k[block, d, column] = rounded(qkv[r, width + first + d])
                        v[place, d] = rounded(qkv[r, 2 * width + first + d])
                    if not enough:
                        _attend(qkv[r], k, v, place + 1, scores, mixed[r], first)
            if enough:
                break
            _linear(mixed, weights.out[layer], weights.out_bias[layer], x, True)
            _normalise(x, weights.norm_mlp[layer], y)
            _linear(y, weights.up[layer], weights.up_bias[layer], up, False)
            _activate(up)
            _linear(up, weights.down[layer], weights.down_bias[layer], x, True)
        if wanted:
            _normalise(x, weights.norm, y)
            for r in range(rows):
                lane, token = divmod(row + r, fresh)
                for c in range(width):
                    hidden[lane, c] = y[r, c]  # the last of a lane's rows comes last
        row += ROWS


@njit(**HELPER)
def _room(width):
    return np.zeros((ROWS, width), np.float32)


@njit(**HELPER)
def _normalise(x, norm, y):
    """`y` = the layer normalisation of the rows of `x`, as wide as `norm` is."""
    width = norm.shape[1]
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
            y[r, c] = (x[r, c] - mean) * scale * norm[0, c] + norm[1, c]


@njit(**HELPER)
def _linear(x, weight, bias, y, add):
    """`y` = `x` @ `weight` + `bias`, or that added to `y`; four rows of a pair at a time."""
    (inputs, outputs), width = weight.shape, y.shape[1]
    for j in range(0, outputs, PAIR):
        for r in range(0, ROWS, 4):
            at = r * width + j
            a = b = c = d = _pair(bias, j)
            if add:
                a = _sum(a, _pair(y, at))
                b = _sum(b, _pair(y, at + width))
                c = _sum(c, _pair(y, at + 2 * width))
                d = _sum(d, _pair(y, at + 3 * width))
            for i in range(inputs):
                w = _pair(weight, i * outputs + j)
                a = _more(x[r, i], w, a)
                b = _more(x[r + 1, i], w, b)
                c = _more(x[r + 2, i], w, c)
                d = _more(x[r + 3, i], w, d)
            _put(y, at, a)
            _put(y, at + width, b)
            _put(y, at + 2 * width, c)
            _put(y, at + 3 * width, d)


@njit(**HELPER)
def _attend(qkv, keys, values, count, scores, mixed, first):
    """What the query `qkv` [`first` : `first` + D] finds among `count` keys, to `mixed` there.

    `scores` [capacity] is room to work in. D divides by 2.
    """
    (_, width, _), room = keys.shape, values.shape[1]
    whole = (count + PAIR - 1) // PAIR * PAIR
    scale, none = np.float32(1 / math.sqrt(width)) * LOG2_E, spread(_ZERO)
    for i in range(0, whole, PAIR):
        even = odd = none, none
        for d in range(0, width, 2):
            at = i * width + d * PAIR
            even = _more(qkv[first + d] * scale, _half_pair(keys, at), even)
            odd = _more(qkv[first + d + 1] * scale, _half_pair(keys, at + PAIR), odd)
        _put(scores, i, _sum(even, odd))
    for i in range(count, whole):
        scores[i] = -_INF  # what lies behind the last key weighs nothing
    most = load(scores, 0)
    for i in range(FLOATS, whole, FLOATS):
        most = larger(most, load(scores, i))
    top, sums = largest(most), none
    for i in range(0, whole, FLOATS):
        weight = exp2(load(scores, i) - top)
        store(scores, i, weight)
        sums = sums + weight
    share = spread(_ONE / total(sums))
    for d in range(0, width, FLOATS):
        a = b = none
        for i in range(0, whole, 2):
            at = i * room + d
            a = spread(scores[i]) * load_half(values, at) + a
            b = spread(scores[i + 1]) * load_half(values, at + room) + b
        store(mixed, first + d, (a + b) * share)


@njit(**HELPER)
def _pair(array, index):
    return load(array, index), load(array, index + FLOATS)


@njit(**HELPER)
def _half_pair(array, index):
    return load_half(array, index), load_half(array, index + FLOATS)


@njit(**HELPER)
def _put(array, index, pair):
    store(array, index, pair[0])
    store(array, index + FLOATS, pair[1])


@njit(**HELPER)
def _sum(one, other):
    return one[0] + other[0], one[1] + other[1]


@njit(**HELPER)
def _more(number, pair, total):
    """`total` + `number` * `pair`."""
    one = spread(number)
    return one * pair[0] + total[0], one * pair[1] + total[1]


@njit(**HELPER)
def _activate(x):
    """GELU in place (Hendrycks and Gimpel 2016, section 2)."""
    for i in range(0, x.size, FLOATS):
        store(x, i, gelu(load(x, i)))
