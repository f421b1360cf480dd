"""The compiled loops of the transformer: rollouts, and what training does between its products.

`read` takes new tokens of many lanes through a whole transformer (`ad/decoder.py`). The arithmetic
is that of `ad/transformer.py` in float32, for eight rows (tokens) at a time so that weights and
activations stay in a core's own cache; keys and values are kept as bfloat16, half the bytes that a
rollout waits for.

The others are the steps between the matrix products of a block, forward and backward
(`ad/passes.py`): each is one pass over its arrays, where operations on tensors would be three to
eight. There B windows of L tokens are N = B L rows; C is the width, F that of the perceptron's
hidden layer, and H heads are D = C / H wide, G = B H of them. `drop` is a `Drop` or None.

One file, since numba's cache knows a loop's file, not those of the helpers that it calls; what is a
single instruction is in `ad/vectors.py`. In all of it bfloat16 is uint16. tests/test_decoder.py and
tests/test_passes.py hold it against the plain transformer.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from ad.threads import HELPER, LOOP
from ad.vectors import (
    FLOATS,
    as_float,
    larger,
    largest,
    load,
    load_half,
    plus,
    rounded,
    spread,
    store,
    take,
    times,
    times_plus,
)

VECTORS = "3643f7b8"  # SHA-256 of ad/vectors.py, its beginning: a change there compiles this anew
ROWS = 8  # tokens that go through a layer of `read` together; divides by 4
PAIR = 2 * FLOATS  # keys or outputs that a loop of `read` has in its registers

_ZERO, _HALF, _ONE, _INF = (np.float32(x) for x in (0, 0.5, 1, np.inf))
_EPS = np.float32(1e-5)  # of the layer normalisation, torch's default
_LOG2_E = np.float32(1 / math.log(2))
_FAINT = np.float32(126)  # 2 ** -126 is the smallest normal number
_DENSITY = np.float32(1 / math.sqrt(2 * math.pi))  # of the standard normal, at its height
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


class Drop(NamedTuple):
    """Dropout of one array: the same numbers whenever it is asked, so that no mask is kept."""

    key: np.uint32
    other_key: np.uint32
    below: np.uint32  # where a hash is dropped
    gain: np.float32  # of what is kept


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
    scale, none = np.float32(1 / math.sqrt(width)) * _LOG2_E, spread(_ZERO)
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
    top, total = largest(most), _ZERO
    for i in range(whole):
        scores[i] = _exp2(scores[i] - top)
        total += scores[i]
    for d in range(0, width, FLOATS):
        a = b = none
        for i in range(0, whole, 2):
            at = i * room + d
            a = times_plus(spread(scores[i]), load_half(values, at), a)
            b = times_plus(spread(scores[i + 1]), load_half(values, at + room), b)
        store(mixed, first + d, times(plus(a, b), spread(_ONE / total)))


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
    return plus(one[0], other[0]), plus(one[1], other[1])


@njit(**HELPER)
def _more(number, pair, total):
    """`total` + `number` * `pair`."""
    one = spread(number)
    return times_plus(one, pair[0], total[0]), times_plus(one, pair[1], total[1])


@njit(**HELPER)
def _activate(x):
    """GELU in place (Hendrycks and Gimpel 2016, section 2)."""
    for r in range(ROWS):
        for j in range(x.shape[1]):
            x[r, j] = _gelu(x[r, j])


@njit(**LOOP)
def normalise(x, norm, y, stats):
    """`y` [N, C] bfloat16 = the layer normalisation of `x`; `stats` [N, 2]: mean, 1 / deviation."""
    for n in range(len(x)):
        _normalise_row(x[n], norm, y[n], stats[n])


@njit(**LOOP)
def add(x, change, bias, z, drop):
    """`z` [N, C] float32 = `x` + what dropout leaves of `change` (bfloat16) + `bias`."""
    for n in range(len(x)):
        _add_row(x[n], change[n], bias, z[n], drop, n)


@njit(**LOOP)
def add_and_normalise(x, change, bias, z, drop, norm, y, stats):
    """`add`, then `normalise` of its `z`."""
    for n in range(len(x)):
        _add_row(x[n], change[n], bias, z[n], drop, n)
        _normalise_row(z[n], norm, y[n], stats[n])


@njit(**HELPER)
def _add_row(x, change, bias, z, drop, row):
    for c in range(x.size):
        z[c] = x[c] + (_to_float(change[c]) + bias[c]) * _kept(drop, row * x.size + c)


@njit(**HELPER)
def _normalise_row(x, norm, y, stats):
    width = np.float32(x.size)
    mean = _ZERO
    for c in range(x.size):
        mean += x[c]
    mean /= width
    square = _ZERO
    for c in range(x.size):
        square += (x[c] - mean) ** 2
    scale = _ONE / np.sqrt(square / width + _EPS)
    for c in range(x.size):
        y[c] = rounded((x[c] - mean) * scale * norm[0, c] + norm[1, c])
    stats[0], stats[1] = mean, scale


@njit(**LOOP)
def add_back(dz, drop, d_change, total):
    """What `dz` [N, C] says of `change`, bfloat16; `total` [C] grows by what it says of `bias`."""
    for n in range(len(dz)):
        _add_row_back(dz[n], drop, n, d_change[n], total)


@njit(**LOOP)
def normalise_back(dy, x, stats, norm, dx, d_norm, drop, d_change, total):
    """Add to `dx` [N, C] what `dy` (bfloat16) says of `x`, to `d_norm` [2, C] what of `norm`.

    Then `add_back` of that `dx`.
    """
    width = x.shape[1]
    for n in range(len(x)):
        mean, scale = stats[n, 0], stats[n, 1]
        one = other = _ZERO
        for c in range(width):
            d, normal = _to_float(dy[n, c]), (x[n, c] - mean) * scale
            d_norm[0, c] += d * normal
            d_norm[1, c] += d
            d *= norm[0, c]
            one += d
            other += d * normal
        one /= np.float32(width)
        other /= np.float32(width)
        for c in range(width):
            d, normal = _to_float(dy[n, c]), (x[n, c] - mean) * scale
            dx[n, c] += scale * (d * norm[0, c] - one - normal * other)
        _add_row_back(dx[n], drop, n, d_change[n], total)


@njit(**HELPER)
def _add_row_back(dz, drop, row, d_change, total):
    for c in range(dz.size):
        d = dz[c] * _kept(drop, row * dz.size + c)
        d_change[c] = rounded(d)
        total[c] += d


@njit(**LOOP)
def activate(x, bias, y):
    """`y` = GELU(`x` + `bias`) [N, F], bfloat16."""
    for n in range(len(x)):
        for f in range(x.shape[1]):
            y[n, f] = rounded(_gelu(_to_float(x[n, f]) + bias[f]))


@njit(**LOOP)
def activate_back(x, bias, y, d, total):
    """`y` as `activate` makes it; `d` [N, F], what is known of it, becomes what is known of `x`.

    `total` [F] grows by its sum.
    """
    for n in range(len(x)):
        for f in range(x.shape[1]):
            value, slope = _gelu_and_slope(_to_float(x[n, f]) + bias[f])
            y[n, f] = rounded(value)
            change = _to_float(d[n, f]) * slope
            d[n, f] = rounded(change)
            total[f] += change


@njit(**LOOP)
def split(x, bias, y):
    """`y` [S, B, H, L, D] = `x` [B, L, S, H, D] + `bias` [S, H, D], bfloat16: S = 3, q, k and v."""
    windows, length, kinds, heads, width = x.shape
    for b in range(windows):
        for t in range(length):
            for s in range(kinds):
                for h in range(heads):
                    for d in range(width):
                        y[s, b, h, t, d] = rounded(_to_float(x[b, t, s, h, d]) + bias[s, h, d])


@njit(**LOOP)
def merge(x, y, total):
    """`y` [B, L, S, H, D] = `x` [S, B, H, L, D], bfloat16; `total` [S, H, D] grows by its sum."""
    kinds, windows, heads, length, width = x.shape
    for b in range(windows):
        for t in range(length):
            for s in range(kinds):
                for h in range(heads):
                    for d in range(width):
                        y[b, t, s, h, d] = x[s, b, h, t, d]
                        total[s, h, d] += _to_float(x[s, b, h, t, d])


@njit(**LOOP)
def weigh(scores, start, scale, drop, used):
    """`scores` [G, M, K] of queries from `start` on, times `scale`, become causal weights.

    With dropout those that it drops are negative, and `used` is what it leaves of them; without it
    `used` is None.
    """
    groups, queries, keys = scores.shape
    row, scale = np.empty(keys, np.float32), np.float32(scale) * _LOG2_E
    for g in range(groups):
        for i in range(queries):
            known, most = start + i + 1, np.int16(-32768)
            for j in range(known):  # as whole numbers, since a maximum of floats is no vector loop
                most = max(most, _in_order(np.int16(scores[g, i, j])))
            top, total = _to_float(_in_order(most)) * scale, _ZERO
            for j in range(known):
                row[j] = _exp2(_to_float(scores[g, i, j]) * scale - top)
                total += row[j]
            total = _ONE / total
            for j in range(known):
                if drop is None:
                    scores[g, i, j] = rounded(row[j] * total)
                else:
                    gain, weight = _kept(drop, (g * queries + i) * keys + j), row[j] * total
                    scores[g, i, j] = rounded(weight if gain > _ZERO else -weight)
                    used[g, i, j] = rounded(weight * gain)
            for j in range(known, keys):
                scores[g, i, j] = 0
                if drop is not None:
                    used[g, i, j] = 0


@njit(**LOOP)
def weigh_back(weights, d, start, scale, drop, used):
    """`d` [G, M, K], what is known of the weights that were used, becomes that of the scores.

    `weights` and `used` are those that `weigh` makes; `used` is made again.
    """
    groups, queries, keys = weights.shape
    scale = np.float32(scale)
    for g in range(groups):
        for i in range(queries):
            known, mean = start + i + 1, _ZERO
            for j in range(known):
                mean += _left(weights[g, i, j], drop) * _to_float(d[g, i, j])
            for j in range(known):
                left = _left(weights[g, i, j], drop)
                if drop is not None:
                    used[g, i, j] = rounded(left)
                weight = abs(_to_float(weights[g, i, j]))
                d[g, i, j] = rounded((left * _to_float(d[g, i, j]) - weight * mean) * scale)
            for j in range(known, keys):
                d[g, i, j] = 0
                if drop is not None:
                    used[g, i, j] = 0


@njit(**HELPER)
def _left(half, drop):
    """What dropout left of a weight, which is negative where it left nothing."""
    weight = _to_float(half)
    return weight if drop is None else max(weight, _ZERO) * drop.gain


@njit(**HELPER)
def _kept(drop, index):
    """By what dropout multiplies the number of that index: 0, or what keeps the mean."""
    if drop is None:
        return _ONE
    # An integer hash; the second key keeps apart streams whose first are alike.
    h = np.uint32(np.uint32(index) ^ drop.key)
    h = np.uint32((h ^ (h >> np.uint32(16))) * np.uint32(0x7FEB352D) + drop.other_key)
    h = np.uint32((h ^ (h >> np.uint32(15))) * np.uint32(0x846CA68B))
    return drop.gain if h >= drop.below else _ZERO


@njit(**HELPER)
def _in_order(half):
    """The bits of a bfloat16, int16, to a whole number of the same order, and back."""
    return np.int16(half ^ (np.int16(half >> np.int16(15)) & np.int16(0x7FFF)))


@njit(**HELPER)
def _gelu(x):
    """GELU (Hendrycks and Gimpel 2016, section 2)."""
    return x * _normal(x, _exp2(-_HALF * _LOG2_E * x * x))


@njit(**HELPER)
def _gelu_and_slope(x):
    """GELU and its derivative."""
    bell = _exp2(-_HALF * _LOG2_E * x * x)
    share = _normal(x, bell)
    return x * share, share + x * bell * _DENSITY


@njit(**HELPER)
def _normal(x, bell):
    """The distribution function of the standard normal; `bell` is e ** (-x ** 2 / 2)."""
    t = _ONE / (_ONE + _ERFC_SCALE * abs(x))
    tail = t * (_ERFC[0] + t * (_ERFC[1] + t * (_ERFC[2] + t * (_ERFC[3] + t * _ERFC[4]))))
    tail *= _HALF * bell
    return tail if x < _ZERO else _ONE - tail


@njit(**HELPER)
def _exp2(x):
    """2 ** x for x <= 0, at least 2 ** -126."""
    x = max(x, -_FAINT)
    whole = np.floor(x)
    r, c = x - whole, _EXP2
    power = c[0] + r * (c[1] + r * (c[2] + r * (c[3] + r * (c[4] + r * c[5]))))
    return power * as_float((np.int32(whole) + np.int32(127)) << np.int32(23))


@njit(**HELPER)
def _to_float(half):
    """The float32 of a bfloat16, which is its upper half."""
    return as_float(np.int32(half) << np.int32(16))
