"""New tokens of many lanes through a whole transformer, compiled: what `ad/decoder.py` runs.

The arithmetic is that of `ad/transformer.py` in float32, for eight rows (tokens) at a time so that
weights and activations stay in a core's own cache; keys and values are kept as bfloat16, half the
bytes that a rollout waits for. tests/test_decoder.py holds it against the plain transformer.
"""

import math
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

ROWS = 8  # tokens that go through a layer together; even
KEYS = 32  # a capacity is a multiple of this, so that loops over keys need no rest

_FAST = {"reassoc", "contract", "arcp", "nsz"}  # NaN and infinity keep their meaning
# Inlined, since a helper that is a function of its own has other bits in the process that compiles
# than in those that load its cache: see `ad/sources/a2c_kernel.py`.
_INLINE = {"fastmath": _FAST, "error_model": "numpy", "forceinline": True}
_LOOP = {"fastmath": _FAST, "error_model": "numpy", "nogil": True, "cache": True}

_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_EPS = np.float32(1e-5)  # of the layer normalisation, torch's default
_LOG2_E = np.float32(1 / math.log(2))
_FAINT = np.float32(126)  # 2 ** -126 is the smallest normal number
_EXP2 = tuple(  # 2 ** x for x in [0, 1], to 2e-7
    np.float32(c)
    for c in np.polynomial.Chebyshev.interpolate(np.exp2, 5, domain=[0, 1])
    .convert(kind=np.polynomial.Polynomial)
    .coef
)
# 1 - erf(x) to 1.5e-7 (Abramowitz and Stegun 1964, 7.1.26)
_ERFC = tuple(
    np.float32(c) for c in (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
)
_ERFC_SCALE = np.float32(0.3275911 / math.sqrt(2))


class Weights(NamedTuple):
    """A transformer's, float32, by layer: norms as scale and shift [2, C], linears as [in, out]."""

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


@njit(**_LOOP)
def read(weights, keys, values, length, tokens, hidden, taken):
    """Read `tokens` [N, L, C] of lanes that nobody has `taken` yet, until there are none.

    `keys` and `values`, bfloat16 as uint16 [layers, N, H, D, capacity], hold `length` tokens and
    get L more; `hidden`, float32 [N, C], gets the last token's. `taken`, int64 [1]: how many lanes
    are, by all threads that call this together.
    """
    layers, _, heads, head_width, capacity = keys.shape
    width, fresh = tokens.shape[2], tokens.shape[1]
    x, y = np.zeros((ROWS, width), np.float32), np.zeros((ROWS, width), np.float32)
    mixed, qkv = np.zeros((ROWS, width), np.float32), np.zeros((ROWS, 3 * width), np.float32)
    up, scores = np.zeros((ROWS, weights.up.shape[2]), np.float32), np.empty(capacity, np.float32)
    row = stop = 0
    while True:
        if row >= stop:
            lane = _take(taken, ROWS)
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
                    k, v = keys[layer, lane, h], values[layer, lane, h]
                    a, b = h * head_width, (h + 1) * head_width
                    _store(qkv[r, width + a : width + b], k, length + token)
                    _store(qkv[r, 2 * width + a : 2 * width + b], v, length + token)
                    if not enough:
                        _attend(qkv[r, a:b], k, v, length + token + 1, scores, mixed[r, a:b])
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


@njit(**_INLINE)
def _normalise(x, norm, y):
    """`y` = the layer normalisation of the rows of `x`."""
    width = x.shape[1]
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


@njit(**_INLINE)
def _linear(x, weight, bias, y, add):
    """`y` = `x` @ `weight` + `bias`, or that added to `y`; the number of inputs divides by 4."""
    inputs, outputs = weight.shape
    for r in range(ROWS):
        for j in range(outputs):
            y[r, j] = bias[j] + (y[r, j] if add else _ZERO)
    for i in range(0, inputs, 4):
        w0, w1, w2, w3 = weight[i], weight[i + 1], weight[i + 2], weight[i + 3]
        for r in range(0, ROWS, 2):  # two rows for each weight that is loaded
            a0, a1, a2, a3 = x[r, i], x[r, i + 1], x[r, i + 2], x[r, i + 3]
            b0, b1, b2, b3 = x[r + 1, i], x[r + 1, i + 1], x[r + 1, i + 2], x[r + 1, i + 3]
            one, other = y[r], y[r + 1]
            for j in range(outputs):
                one[j] += a0 * w0[j] + a1 * w1[j] + a2 * w2[j] + a3 * w3[j]
                other[j] += b0 * w0[j] + b1 * w1[j] + b2 * w2[j] + b3 * w3[j]


@njit(**_INLINE)
def _store(vector, table, place):
    """Put a `vector` [D] into the column `place` of `table` [D, capacity]."""
    for d in range(vector.size):
        table[d, place] = _to_half(vector[d])


@njit(**_INLINE)
def _attend(q, keys, values, count, scores, out):
    """`out` [D] = what `q` [D] finds among the first `count` keys and values [D, capacity].

    `scores` [capacity] is room to work in. D divides by 4.
    """
    width, whole = q.size, (count + KEYS - 1) // KEYS * KEYS
    scale = np.float32(1 / math.sqrt(width)) * _LOG2_E
    for i in range(whole):
        scores[i] = _ZERO
    for d in range(0, width, 4):
        q0, q1, q2, q3 = q[d] * scale, q[d + 1] * scale, q[d + 2] * scale, q[d + 3] * scale
        k0, k1, k2, k3 = keys[d], keys[d + 1], keys[d + 2], keys[d + 3]
        for i in range(whole):
            scores[i] += (
                q0 * _to_float(k0[i])
                + q1 * _to_float(k1[i])
                + q2 * _to_float(k2[i])
                + q3 * _to_float(k3[i])
            )
    most = scores[0]
    for i in range(1, count):
        most = max(most, scores[i])
    for i in range(count, whole):
        scores[i] = most - _FAINT  # what lies behind the last key weighs nothing
    total = _ZERO
    for i in range(whole):
        scores[i] = _exp2(scores[i] - most)
        total += scores[i]
    for d in range(width):
        found = _ZERO
        for i in range(whole):
            found += scores[i] * _to_float(values[d, i])
        out[d] = found / total


@njit(**_INLINE)
def _activate(x):
    """GELU in place (Hendrycks and Gimpel 2016, section 2)."""
    for r in range(ROWS):
        for j in range(x.shape[1]):
            x[r, j] = _gelu(x[r, j])


@njit(**_INLINE)
def _gelu(x):
    t = _ONE / (_ONE + _ERFC_SCALE * abs(x))
    tail = t * (_ERFC[0] + t * (_ERFC[1] + t * (_ERFC[2] + t * (_ERFC[3] + t * _ERFC[4]))))
    tail *= _HALF * _exp2(-_HALF * _LOG2_E * x * x)
    return x * (tail if x < _ZERO else _ONE - tail)


@njit(**_INLINE)
def _exp2(x):
    """2 ** x for x <= 0, at least 2 ** -126."""
    x = max(x, -_FAINT)
    whole = np.floor(x)
    r, c = x - whole, _EXP2
    power = c[0] + r * (c[1] + r * (c[2] + r * (c[3] + r * (c[4] + r * c[5]))))
    return power * _as_float((np.int32(whole) + np.int32(127)) << np.int32(23))


@njit(**_INLINE)
def _to_float(half):
    """The float32 of a bfloat16, which is its upper half."""
    return _as_float(np.int32(half) << np.int32(16))


@njit(**_INLINE)
def _to_half(number):
    """The bfloat16 nearest to a float32, the even one of two; NaN stays NaN, whatever its bits."""
    if number != number:
        return np.uint16(0x7FC0)
    bits = _as_bits(number)
    odd = (bits >> np.int32(16)) & np.int32(1)
    return np.uint16((bits + np.int32(0x7FFF) + odd) >> np.int32(16))


@intrinsic
def _take(context, counter, amount):
    """Add `amount` to `counter`, int64 [1], at once for all threads; what it was before."""

    def add(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.atomic_rmw("add", array.data, arguments[1], "monotonic")

    return types.int64(counter, types.int64), add


@intrinsic
def _as_float(context, bits):
    def cast(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), cast


@intrinsic
def _as_bits(context, number):
    def cast(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), cast
