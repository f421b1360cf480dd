"""The compiled loops of training: a transformer's blocks forward and backward (`training.py`).

B windows of L tokens are N = B L rows, of which `ROWS` at a time go from product to product in a
core's cache. C is the width, F that of the perceptron's hidden layer; H heads are D = C / H wide,
an even number. Rows of all arrays are filled up to a multiple of `WIDTH`: with zeros, or with what
meets only weights that are 0. Arrays of N rows of bfloat16 (uint16) have more behind them: up to a
multiple of `ROWS`, and two times `WIDTH`.

Attention is in `attention_loops.py`. Dropout is made again on the way back, from a hash of the
place. Arithmetic between bfloat16 numbers is in float32. They are what enters a product;
tests/test_passes.py holds this against the plain transformer.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from ad.models.kernels.attention_loops import AttentionRoom, Place, attend, attend_back
from ad.models.kernels.functions import Drop, kept, rough_gelu, rough_gelu_and_slope
from ad.models.kernels.gemm import LEAST, more_product, product
from ad.models.kernels.simd import (
    FLOATS,
    first_of,
    load,
    load_half,
    pair_up,
    spread,
    store,
    store_half,
    store_pair,
    total,
    turn,
)
from ad.runtime.parallel import HELPER, LOOP

# SHA-256 of functions.py, attention_loops.py, gemm.py, simd.py, its beginning
COMPILED_FROM = "299f243c"
ROWS = 128  # that go through a block together, a multiple of LEAST
COLUMNS = 256  # of what a product makes of them, until something is done with it
WIDTH = FLOATS
APART = FLOATS  # words between rows of words: in rows of 4 KiB all would share one set of a cache

_ZERO, _ONE = np.float32(0), np.float32(1)
_EPS = np.float32(1e-5)  # of the layer normalisation, torch's default
_ATTENTION, _MIXED, _MLP = range(3)  # the places of dropout in a block


class Matrix(NamedTuple):
    """A linear map [out, in] of each layer in words, as `gemm.py` takes it: see `pack`."""

    ahead: np.ndarray  # [layers, in / 2, out + APART], for what comes out
    back: np.ndarray  # [layers, out / 2, in + APART], for what is known of what went in


class Weights(NamedTuple):
    """The blocks' parameters; norms are scale and shift [layers, 2, C], biases [layers, out]."""

    norm_attention: np.ndarray
    qkv: Matrix
    qkv_bias: np.ndarray
    out: Matrix
    out_bias: np.ndarray
    norm_mlp: np.ndarray
    up: Matrix
    up_bias: np.ndarray
    down: Matrix
    down_bias: np.ndarray
    norm: np.ndarray  # behind the last block, [1, 2, C]


class Gradients(NamedTuple):
    """Of the same, float32, matrices as [layers, out, in]."""

    norm_attention: np.ndarray
    qkv: np.ndarray
    qkv_bias: np.ndarray
    out: np.ndarray
    out_bias: np.ndarray
    norm_mlp: np.ndarray
    up: np.ndarray
    up_bias: np.ndarray
    down: np.ndarray
    down_bias: np.ndarray
    norm: np.ndarray


class Room(NamedTuple):
    """For `ROWS` that are on their way, in either direction, and for a head; zeros at first."""

    y: np.ndarray  # [ROWS, C], behind a normalisation
    hidden: np.ndarray  # [ROWS, F]
    d: np.ndarray  # [ROWS, C]
    d_up: np.ndarray  # [ROWS, F]
    made: np.ndarray  # float32 [ROWS, C or COLUMNS], by a product
    pairs: np.ndarray  # words [ROWS / 2 * (the widest + APART)], of two rows each
    more_pairs: np.ndarray
    near: int  # rows of the windows that go from block to block together
    d_mixed: np.ndarray  # [near, C], what is known of what attention finds
    d_qkv: np.ndarray  # [near, 3 C]
    attention: AttentionRoom


class Saved(NamedTuple):
    """What the way back needs of the way there, by layer; and room to work in."""

    x: np.ndarray  # [layers, N, C], the stream that comes in, float32
    x_stats: np.ndarray  # [layers, N, 2]: its mean and 1 / deviation
    qkv: np.ndarray  # [layers, N, 3 C]
    sums: np.ndarray  # [layers, H, 2, N and more]: a query's largest score, 1 / its weights' sum
    mixed: np.ndarray  # [layers, N, C], what attention finds
    between: np.ndarray  # [layers, N, C], the stream behind attention, float32
    between_stats: np.ndarray  # [layers, N, 2]
    up: np.ndarray  # [layers, N, F], without its bias
    last: np.ndarray  # [N, C], the stream that comes out, float32
    last_stats: np.ndarray  # [N, 2]
    room: Room


class Drops(NamedTuple):
    """Dropout by layer, of attention weights, of what attention adds and of what the MLP adds."""

    keys: np.ndarray  # uint32 [layers, 3, 2]
    below: np.ndarray  # uint32 [3]: where a hash is dropped
    gain: np.ndarray  # float32 [3]: of what is kept


@njit(**LOOP)
def pack(matrix, rows, ahead, back):
    """Words of a `matrix` [layers, out, in], float32, both filled up: see `Matrix`.

    `rows` [out, in], bfloat16, is for those of a layer.
    """
    layers, outputs, inputs = matrix.shape
    for layer in range(layers):
        at = layer * outputs * inputs
        for o in range(0, outputs, 2):
            for i in range(0, inputs, FLOATS):
                one = load(matrix, at + o * inputs + i)
                other = load(matrix, at + (o + 1) * inputs + i)
                row = layer * (outputs // 2) + o // 2
                store_pair(back, row * (inputs + APART) + i, one, other)
                store_half(rows, o * inputs + i, one)
                store_half(rows, (o + 1) * inputs + i, other)
        words = rows.view(np.uint32)
        across = inputs // 2
        for o in range(0, outputs, FLOATS):
            for i in range(0, across - across % FLOATS, FLOATS):
                to = (layer * across + i) * (outputs + APART) + o
                turn(words, o * across + i, across, ahead, to, outputs + APART)
            for i in range(across - across % FLOATS, across):
                for r in range(o, o + FLOATS):
                    ahead[layer, i, r] = words[r, i]


@njit(**LOOP)
def forward(weights, x, length, width, heads, saved, drops, out):
    """`out` [N, C] = hidden states for `x`, both float32; fills `saved`.

    `width` is C, which `x` and `out` fill up; `drops` is None or says what to drop.
    """
    (count, wide), layers, near = x.shape, len(saved.x), saved.room.near
    for n in range(count):
        for c in range(wide):
            saved.x[0, n, c] = x[n, c]
    for first in range(0, count, near):
        last = min(first + near, count)
        for layer in range(layers):
            after = saved.x[layer + 1] if layer + 1 < layers else saved.last
            for start in range(first, last, ROWS):
                _into_attention(weights, layer, width, saved, start, min(ROWS, last - start))
            drop, into = _drop(drops, layer, _ATTENTION), (saved.sums[layer], saved.mixed[layer])
            for head in range((last - first) // length * heads):
                place = _place(first, head, length, width, heads)
                attend(saved.qkv[layer], place, drop, *into, saved.room.attention)
            for start in range(first, last, ROWS):
                part = start, min(ROWS, last - start)
                _behind_attention(weights, layer, width, saved, *part, drops, after)
        for n in range(first, last):
            _measure(saved.last, n, width, saved.last_stats)
            for c in range(0, wide, FLOATS):
                value = _normal(saved.last, n, c, weights.norm, 0, saved.last_stats)
                store(out, n * wide + c, value)


@njit(**HELPER)
def _into_attention(weights, layer, width, saved, start, rows):
    """Queries, keys and values of so many rows."""
    y, made, qkv, triple = saved.room.y, saved.room.made, saved.qkv[layer], saved.qkv.shape[2]
    for r in range(rows):
        at = (saved.x[layer], start + r, width, weights.norm_attention, layer)
        _normalise(*at, y, r, saved.x_stats[layer])
    for first in range(0, triple, COLUMNS):
        last = _through(y, 0, rows, weights.qkv.ahead[layer], first, COLUMNS, made)
        for r in range(rows):
            to, at = (start + r) * triple, r * made.shape[1] - first
            for c in range(first, last, FLOATS):
                value = load(made, at + c) + load(weights.qkv_bias, layer * triple + c)
                store_half(qkv, to + c, value)


@njit(**HELPER)
def _behind_attention(weights, layer, width, saved, start, rows, drops, after):
    """From what attention found to what comes out of the block, `after`."""
    room, up, full = saved.room, saved.up[layer], saved.up.shape[2]
    y, hidden, made, wide = room.y, room.hidden, room.made, room.y.shape[1]
    stream, between, drop = saved.x[layer], saved.between[layer], _drop(drops, layer, _MIXED)
    _through(saved.mixed[layer], start, rows, weights.out.ahead[layer], 0, wide, made)
    for r in range(rows):
        _add(stream, start + r, made, r, weights.out_bias, layer, drop, between)
        at = (between, start + r, width, weights.norm_mlp, layer)
        _normalise(*at, y, r, saved.between_stats[layer])
    for first in range(0, full, COLUMNS):
        last = _through(y, 0, rows, weights.up.ahead[layer], first, COLUMNS, made)
        for r in range(rows):
            to, at = (start + r) * full, r * made.shape[1] - first
            for f in range(first, last, FLOATS):
                store_half(up, to + f, load(made, at + f))
                value = load_half(up, to + f) + load(weights.up_bias, layer * full + f)
                store_half(hidden, r * full + f, rough_gelu(value))
    _through(hidden, 0, rows, weights.down.ahead[layer], 0, wide, made)
    drop = _drop(drops, layer, _MLP)
    for r in range(rows):
        _add(between, start + r, made, r, weights.down_bias, layer, drop, after)


@njit(**LOOP)
def backward(weights, length, width, heads, saved, drops, d, dx, gradients):
    """`dx` [N, C] = what is known of `x`, from that of the hidden states, `d`; `gradients` grow."""
    count, room, near = len(dx), saved.room, saved.room.near
    for first in range(0, count, near):
        last = min(first + near, count)
        for n in range(first, last):
            for c in range(dx.shape[1]):
                dx[n, c] = _ZERO
            row = (saved.last, n, width, saved.last_stats, weights.norm, 0)
            _normalise_back(d, n, *row, dx, gradients.norm)
        for layer in range(len(saved.x) - 1, -1, -1):
            for start in range(first, last, ROWS):
                part, to = (start, min(ROWS, last - start)), start - first
                _up_and_down_back(weights, layer, width, saved, *part, drops, dx, gradients)
                _mixed_back(weights, layer, saved, *part, to, drops, dx, gradients)
            drop, known = _drop(drops, layer, _ATTENTION), (saved.sums[layer], saved.mixed[layer])
            for head in range((last - first) // length * heads):
                place = _place(first, head, length, width, heads)
                into = room.d_mixed, room.d_qkv, room.attention
                attend_back(saved.qkv[layer], place, drop, *known, *into)
            for start in range(first, last, ROWS):
                part, at = (start, min(ROWS, last - start)), start - first
                _into_attention_back(weights, layer, width, saved, *part, at, dx, gradients)


@njit(**HELPER)
def _up_and_down_back(weights, layer, width, saved, start, rows, drops, dx, gradients):
    """Through the perceptron, its normalisation and the addition, of so many rows."""
    room, up, full, between = saved.room, saved.up[layer], saved.up.shape[2], saved.between[layer]
    y, d, d_up, hidden, made, wide = room.y, room.d, room.d_up, room.hidden, room.made, dx.shape[1]
    drop = _drop(drops, layer, _MLP)
    for r in range(rows):
        _add_back(dx, start + r, drop, d, r, gradients.down_bias, layer)
        at = (between, start + r, weights.norm_mlp, layer)
        _normalise_again(*at, y, r, saved.between_stats[layer])
    for r in range(rows, rows + rows % 2):  # what is left of another would count as theirs
        for c in range(wide):
            d[r, c] = 0
        for f in range(full):
            d_up[r, f] = 0
    for first in range(0, full, COLUMNS):
        last = _through(d, 0, rows, weights.down.back[layer], first, COLUMNS, made)
        for r in range(rows):
            to, at = r * full, r * made.shape[1] - first
            for f in range(first, last, FLOATS):
                value = load_half(up, (start + r) * full + f)
                value = value + load(weights.up_bias, layer * full + f)
                value, slope = rough_gelu_and_slope(value)
                store_half(hidden, to + f, value)
                change, bias = load(made, at + f) * slope, layer * full + f
                store_half(d_up, to + f, change)
                store(gradients.up_bias, bias, load(gradients.up_bias, bias) + change)
    _learn(d, 0, hidden, 0, rows, room, gradients.down[layer])
    _learn(d_up, 0, y, 0, rows, room, gradients.up[layer])
    _through(d_up, 0, rows, weights.up.back[layer], 0, wide, made)
    for r in range(rows):
        at = (between, start + r, width, saved.between_stats[layer])
        _normalise_back(made, r, *at, weights.norm_mlp, layer, dx, gradients.norm_mlp)


@njit(**HELPER)
def _mixed_back(weights, layer, saved, start, rows, to, drops, dx, gradients):
    """To what is known of what attention found, in rows of `d_mixed` from `to` on.

    What `_up_and_down_back` made 0 still is.
    """
    room, drop, wide = saved.room, _drop(drops, layer, _MIXED), dx.shape[1]
    d, made = room.d, room.made
    for r in range(rows):
        _add_back(dx, start + r, drop, d, r, gradients.out_bias, layer)
    _learn(d, 0, saved.mixed[layer], start, rows, room, gradients.out[layer])
    _through(d, 0, rows, weights.out.back[layer], 0, wide, made)
    for r in range(rows):
        for c in range(0, wide, FLOATS):
            store_half(room.d_mixed, (to + r) * wide + c, load(made, r * made.shape[1] + c))


@njit(**HELPER)
def _into_attention_back(weights, layer, width, saved, start, rows, at, dx, gradients):
    """From what is known of queries, keys and values, rows `at`, to that of the stream."""
    room, d_qkv, triple, wide = saved.room, saved.room.d_qkv, saved.qkv.shape[2], dx.shape[1]
    for r in range(rows, rows + rows % 2):  # what is left of another would count as theirs
        for c in range(triple):
            d_qkv[at + r, c] = 0
    for r in range(rows):
        for c in range(0, triple, FLOATS):
            change, bias = load_half(d_qkv, (at + r) * triple + c), layer * triple + c
            store(gradients.qkv_bias, bias, load(gradients.qkv_bias, bias) + change)
        row = (saved.x[layer], start + r, weights.norm_attention, layer)
        _normalise_again(*row, room.y, r, saved.x_stats[layer])
    _learn(d_qkv, at, room.y, 0, rows, room, gradients.qkv[layer])
    _through(d_qkv, at, rows, weights.qkv.back[layer], 0, wide, room.made)
    norm, d_norm = weights.norm_attention, gradients.norm_attention
    for r in range(rows):
        row = (saved.x[layer], start + r, width, saved.x_stats[layer])
        _normalise_back(room.made, r, *row, norm, layer, dx, d_norm)


@njit(**HELPER)
def _place(first, number, length, width, heads):
    """Of the head of this `number` among those of the windows from row `first` on."""
    window, head = divmod(number, heads)
    near = window * length
    group = first // length * heads + number
    return Place(first + near, near, length, width, width // heads, head, group)


@njit(**HELPER)
def _through(x, start, rows, matrix, first, columns, made):
    """What a linear map, in words, makes of so many rows of `x` from `start` on, to `made`.

    So many columns of it from the `first` on, or as many as there are; where they stop.
    """
    (inputs, apart), across = matrix.shape, made.shape[1]
    last = min(first + columns, apart - APART)
    part, most = (matrix, first, apart, inputs), (rows + LEAST - 1) // LEAST * LEAST
    product(x, start * inputs, inputs, 1, *part, made, 0, across, most, last - first)
    return last


@njit(**HELPER)
def _learn(d, d_start, x, x_start, rows, room, gradient):
    """What so many rows of `d`, known of what a map made of those of `x`, say of it."""
    outputs, inputs = gradient.shape
    _pair_up(d, d_start, rows, room.pairs)
    _pair_up(x, x_start, rows, room.more_pairs)
    words = (room.pairs, 0, 1, outputs + APART, room.more_pairs, 0, inputs + APART)
    more_product(*words, (rows + 1) // 2, gradient, 0, inputs, outputs, inputs)


@njit(**HELPER)
def _pair_up(x, start, rows, pairs):
    """Words of two rows of `x` each."""
    wide = x.shape[1]
    for r in range(0, rows, 2):
        at = (start + r) * wide
        for c in range(0, wide, FLOATS):
            pair_up(x, at + c, at + c + wide, pairs, r // 2 * (wide + APART) + c)


@njit(**HELPER)
def _normalise(x, row, width, norm, layer, y, r, stats):
    """Row `r` of `y` = the layer normalisation of a `row` of `x`; `stats`: mean, 1 / deviation."""
    _measure(x, row, width, stats)
    _normalise_again(x, row, norm, layer, y, r, stats)


@njit(**HELPER)
def _measure(x, row, width, stats):
    wide = x.shape[1]
    at, sums = row * wide, spread(_ZERO)
    for c in range(0, wide, FLOATS):
        sums = sums + load(x, at + c)
    mean = total(sums) / np.float32(width)
    minus, squares = spread(-mean), spread(_ZERO)
    for c in range(0, wide, FLOATS):
        off = first_of(load(x, at + c) + minus, width - c, _ZERO)
        squares = off * off + squares
    square = total(squares) / np.float32(width)
    stats[row, 0], stats[row, 1] = mean, _ONE / np.sqrt(square + _EPS)


@njit(**HELPER)
def _normalise_again(x, row, norm, layer, y, r, stats):
    wide = x.shape[1]
    for c in range(0, wide, FLOATS):
        store_half(y, r * wide + c, _normal(x, row, c, norm, layer, stats))


@njit(**HELPER)
def _normal(x, row, c, norm, layer, stats):
    """Sixteen numbers of a `row`, from `c` on, normalised."""
    wide = x.shape[1]
    normal = (load(x, row * wide + c) - stats[row, 0]) * stats[row, 1]
    return normal * load(norm, 2 * layer * wide + c) + load(norm, (2 * layer + 1) * wide + c)


@njit(**HELPER)
def _normalise_back(dy, r, x, row, width, stats, norm, layer, dx, d_norm):
    """Add to a `row` of `dx` what `dy` says of that of `x`, and to `d_norm` what of `norm`."""
    wide, at, to = x.shape[1], row * x.shape[1], r * dy.shape[1]
    minus, scale = spread(-stats[row, 0]), spread(stats[row, 1])
    ones = others = spread(_ZERO)
    for c in range(0, wide, FLOATS):
        d, normal = load(dy, to + c), (load(x, at + c) + minus) * scale
        gain, shift = 2 * layer * wide + c, (2 * layer + 1) * wide + c
        store(d_norm, gain, d * normal + load(d_norm, gain))
        store(d_norm, shift, d + load(d_norm, shift))
        d = d * load(norm, gain)
        ones = ones + d
        others = d * normal + others
    one = spread(-total(ones) / np.float32(width))
    other = spread(-total(others) / np.float32(width))
    for c in range(0, wide, FLOATS):
        d, normal = load(dy, to + c), (load(x, at + c) + minus) * scale
        d = d * load(norm, 2 * layer * wide + c) + one + normal * other
        store(dx, at + c, scale * d + load(dx, at + c))


@njit(**HELPER)
def _add(x, row, made, r, bias, layer, drop, z):
    """A `row` of `z` = that of `x` + what dropout leaves of `made` + `bias`."""
    wide = x.shape[1]
    for c in range(0, wide, FLOATS):
        change = load(made, r * made.shape[1] + c) + load(bias, layer * wide + c)
        change = change * kept(drop, row * wide + c)
        store(z, row * wide + c, load(x, row * wide + c) + change)


@njit(**HELPER)
def _add_back(dx, row, drop, d, r, sums, layer):
    """What a `row` of `dx` says of what was added there, to `d`; the bias's `sums` grow by it."""
    wide = dx.shape[1]
    for c in range(0, wide, FLOATS):
        change = load(dx, row * wide + c) * kept(drop, row * wide + c)
        store_half(d, r * wide + c, change)
        store(sums, layer * wide + c, load(sums, layer * wide + c) + change)


@njit(**HELPER)
def _drop(drops, layer, which):
    if drops is None:
        return None
    keys = drops.keys[layer, which]
    return Drop(keys[0], keys[1], drops.below[which], drops.gain[which])
