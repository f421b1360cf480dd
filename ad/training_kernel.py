"""The compiled loops of training: a transformer's blocks forward and backward (`ad/passes.py`).

B windows of L tokens are N = B L rows, of which `ROWS` at a time go from product to product in a
core's cache. C is the width, F that of the perceptron's hidden layer; H heads are D = C / H wide,
an even number. Rows of all arrays are filled up to a multiple of `WIDTH`: with zeros, but for those
of `dx`, where nobody reads what is there. Those of bfloat16 (uint16) have rows behind N: up to a
multiple of `ROWS`, and `LEAST` more.

Attention goes through a head's queries a few at a time and keeps of a row of its weights only what
makes them again: their largest score and their sum (Dao et al. 2022, section 3.1). Dropout is made
again too, from a hash of the place. Arithmetic between bfloat16 numbers is in float32. They are
what enters a product; tests/test_passes.py holds this against the plain transformer.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from ad.arithmetic import LOG2_E, exp2, gelu, gelu_and_slope, to_float
from ad.threads import HELPER, LOOP
from ad.tiles import LEAST, more_product, product
from ad.vectors import (
    FLOATS,
    dropped,
    first_of,
    larger,
    largest,
    load,
    load_half,
    pair_up,
    rounded,
    spread,
    store,
    store_half,
    total,
)

COMPILED_FROM = "43985f3b"  # SHA-256 of ad/arithmetic.py, ad/tiles.py, ad/vectors.py, its beginning
ROWS = 64  # that go through a block together, and queries whose keys learn together; in LEASTs
WIDTH = FLOATS

_ZERO, _ONE, _INF = (np.float32(x) for x in (0, 1, np.inf))
_EPS = np.float32(1e-5)  # of the layer normalisation, torch's default
_ATTENTION, _MIXED, _MLP = range(3)  # the places of dropout in a block


class Matrix(NamedTuple):
    """A linear map [out, in] of each layer in words, as `ad/tiles.py` takes it: see `pack`."""

    ahead: np.ndarray  # [layers, in / 2, out], for what comes out
    back: np.ndarray  # [layers, out / 2, in], for what is known of what went in


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


class Saved(NamedTuple):
    """What the way back needs of the way there, by layer."""

    x: np.ndarray  # [layers, N, C], the stream that comes in, float32
    x_stats: np.ndarray  # [layers, N, 2]: its mean and 1 / deviation
    qkv: np.ndarray  # [layers, N, 3 C]
    sums: np.ndarray  # [layers, N, H, 2]: a query's largest score and 1 / the sum of its weights
    mixed: np.ndarray  # [layers, N, C], what attention finds
    between: np.ndarray  # [layers, N, C], the stream behind attention, float32
    between_stats: np.ndarray  # [layers, N, 2]
    up: np.ndarray  # [layers, N, F], without its bias


class Drops(NamedTuple):
    """Dropout by layer, of attention weights, of what attention adds and of what the MLP adds."""

    keys: np.ndarray  # uint32 [layers, 3, 2]
    below: np.ndarray  # uint32 [3]: where a hash is dropped
    gain: np.ndarray  # float32 [3]: of what is kept


class Drop(NamedTuple):
    """Dropout of one array: the same numbers whenever it is asked, so that no mask is kept."""

    key: np.uint32
    other_key: np.uint32
    below: np.uint32
    gain: np.float32


@njit(**LOOP)
def pack(matrix, ahead, back):
    """Words of a `matrix` [layers, out, in], float32: see `Matrix`."""
    layers, outputs, inputs = matrix.shape
    for layer in range(layers):
        for o in range(outputs):
            for i in range(0, inputs, 2):
                other = matrix[layer, o, i + 1] if i + 1 < inputs else _ZERO
                ahead[layer, i // 2, o] = _word(matrix[layer, o, i], other)
        for o in range(0, outputs, 2):
            for i in range(inputs):
                other = matrix[layer, o + 1, i] if o + 1 < outputs else _ZERO
                back[layer, o // 2, i] = _word(matrix[layer, o, i], other)


@njit(**LOOP)
def forward(weights, x, length, width, heads, saved, drops, out):
    """`out` [N, C] = what comes out of the last block for `x`, both float32; fills `saved`.

    `width` is C, which `x` and `out` fill up; `drops` is None or says what to drop.
    """
    count, wide = x.shape
    layers, room = len(saved.x), _room(saved)
    attention_room = _attention_room(length, width // heads)
    for n in range(count):
        for c in range(wide):
            saved.x[0, n, c] = x[n, c]
    for layer in range(layers):
        after = saved.x[layer + 1] if layer + 1 < layers else out
        for start in range(0, count, ROWS):
            _into_attention(weights, layer, width, saved, start, min(ROWS, count - start), room)
        for group in range(count // length * heads):
            place = _place(group, length, width, heads)
            drop, kept = _drop(drops, layer, _ATTENTION), (saved.sums[layer], saved.mixed[layer])
            _attend(saved.qkv[layer], place, drop, *kept, attention_room)
        for start in range(0, count, ROWS):
            part = start, min(ROWS, count - start)
            _behind_attention(weights, layer, width, saved, *part, room, drops, after)


@njit(**HELPER)
def _into_attention(weights, layer, width, saved, start, rows, room):
    """Queries, keys and values of so many rows."""
    y, made, qkv, triple = room.y, room.made, saved.qkv[layer], saved.qkv.shape[2]
    for r in range(rows):
        at = (saved.x[layer], start + r, width, weights.norm_attention, layer)
        _normalise(*at, y, r, saved.x_stats[layer])
    _through(y, 0, weights.qkv.ahead[layer], made)
    for r in range(rows):
        for c in range(0, triple, FLOATS):
            value = load(made, r * made.shape[1] + c) + load(weights.qkv_bias, layer * triple + c)
            store_half(qkv, (start + r) * triple + c, value)


@njit(**HELPER)
def _behind_attention(weights, layer, width, saved, start, rows, room, drops, after):
    """From what attention found to what comes out of the block, `after`."""
    y, hidden, made, up, full = room.y, room.hidden, room.made, saved.up[layer], saved.up.shape[2]
    stream, between, drop = saved.x[layer], saved.between[layer], _drop(drops, layer, _MIXED)
    _through(saved.mixed[layer], start, weights.out.ahead[layer], made)
    for r in range(rows):
        _add(stream, start + r, made, r, weights.out_bias, layer, drop, between)
        at = (between, start + r, width, weights.norm_mlp, layer)
        _normalise(*at, y, r, saved.between_stats[layer])
    _through(y, 0, weights.up.ahead[layer], made)
    for r in range(rows):
        for f in range(0, full, FLOATS):
            at = (start + r) * full + f
            store_half(up, at, load(made, r * made.shape[1] + f))
            value = load_half(up, at) + load(weights.up_bias, layer * full + f)
            store_half(hidden, r * full + f, gelu(value))
    _through(hidden, 0, weights.down.ahead[layer], made)
    drop = _drop(drops, layer, _MLP)
    for r in range(rows):
        _add(between, start + r, made, r, weights.down_bias, layer, drop, after)


@njit(**LOOP)
def backward(weights, length, width, heads, saved, drops, dx, gradients):
    """`dx` [N, C], known of what came out, becomes what is known of `x`; `gradients` grow."""
    count, layers, room = len(dx), len(saved.x), _room(saved)
    d_mixed = np.zeros(saved.mixed.shape[1:], np.uint16)
    d_qkv = np.zeros(saved.qkv.shape[1:], np.uint16)
    attention_room = _attention_room(length, width // heads)
    back_room = _attention_back_room(length, width // heads)
    for layer in range(layers - 1, -1, -1):
        for start in range(0, count, ROWS):
            part = start, min(ROWS, count - start)
            _up_and_down_back(weights, layer, width, saved, *part, room, drops, dx, gradients)
            _mixed_back(weights, layer, saved, *part, room, drops, dx, gradients, d_mixed)
        for group in range(count // length * heads):
            place = _place(group, length, width, heads)
            drop, known = _drop(drops, layer, _ATTENTION), (saved.sums[layer], saved.mixed[layer])
            rooms = attention_room, back_room
            _attend_back(saved.qkv[layer], place, drop, *known, d_mixed, d_qkv, *rooms)
        for start in range(0, count, ROWS):
            part = start, min(ROWS, count - start)
            _into_attention_back(weights, layer, width, saved, *part, room, dx, d_qkv, gradients)


@njit(**HELPER)
def _up_and_down_back(weights, layer, width, saved, start, rows, room, drops, dx, gradients):
    """Through the perceptron, its normalisation and the addition, of so many rows."""
    y, d, d_up, hidden, made = room.y, room.d, room.d_up, room.hidden, room.made
    up, full, between = saved.up[layer], saved.up.shape[2], saved.between[layer]
    drop = _drop(drops, layer, _MLP)
    for r in range(rows):
        _add_back(dx, start + r, drop, d, r, gradients.down_bias, layer)
    for r in range(rows, ROWS):  # what is left of others would count as theirs
        for c in range(d.shape[1]):
            d[r, c] = 0
        for f in range(full):
            d_up[r, f] = 0
    _through(d, 0, weights.down.back[layer], made)
    for r in range(rows):
        for f in range(0, full, FLOATS):
            at, bias = r * full + f, layer * full + f
            value = load_half(up, (start + r) * full + f) + load(weights.up_bias, bias)
            value, slope = gelu_and_slope(value)
            store_half(hidden, at, value)
            change = load(made, r * made.shape[1] + f) * slope
            store_half(d_up, at, change)
            store(gradients.up_bias, bias, load(gradients.up_bias, bias) + change)
        at = (between, start + r, weights.norm_mlp, layer)
        _normalise_again(*at, y, r, saved.between_stats[layer])
    _learn(d, 0, hidden, 0, room, gradients.down[layer])
    _learn(d_up, 0, y, 0, room, gradients.up[layer])
    _through(d_up, 0, weights.up.back[layer], made)
    for r in range(rows):
        at = (between, start + r, width, saved.between_stats[layer])
        _normalise_back(made, r, *at, weights.norm_mlp, layer, dx, gradients.norm_mlp)


@njit(**HELPER)
def _mixed_back(weights, layer, saved, start, rows, room, drops, dx, gradients, d_mixed):
    """To what is known of what attention found; what `_up_and_down_back` made 0 still is."""
    d, made, wide = room.d, room.made, dx.shape[1]
    drop = _drop(drops, layer, _MIXED)
    for r in range(rows):
        _add_back(dx, start + r, drop, d, r, gradients.out_bias, layer)
    _learn(d, 0, saved.mixed[layer], start, room, gradients.out[layer])
    _through(d, 0, weights.out.back[layer], made)
    for r in range(rows):
        for c in range(0, wide, FLOATS):
            store_half(d_mixed, (start + r) * wide + c, load(made, r * made.shape[1] + c))


@njit(**HELPER)
def _into_attention_back(weights, layer, width, saved, start, rows, room, dx, d_qkv, gradients):
    """From what is known of queries, keys and values to that of the stream."""
    y, made, triple = room.y, room.made, d_qkv.shape[1]
    for r in range(rows):
        for c in range(0, triple, FLOATS):
            change, bias = load_half(d_qkv, (start + r) * triple + c), layer * triple + c
            store(gradients.qkv_bias, bias, load(gradients.qkv_bias, bias) + change)
        at = (saved.x[layer], start + r, weights.norm_attention, layer)
        _normalise_again(*at, y, r, saved.x_stats[layer])
    _learn(d_qkv, start, y, 0, room, gradients.qkv[layer])
    _through(d_qkv, start, weights.qkv.back[layer], made)
    for r in range(rows):
        at = (saved.x[layer], start + r, width, saved.x_stats[layer])
        _normalise_back(made, r, *at, weights.norm_attention, layer, dx, gradients.norm_attention)


class Room(NamedTuple):
    """For `ROWS` that are on their way, in either direction."""

    y: np.ndarray  # behind a normalisation
    hidden: np.ndarray
    d: np.ndarray
    d_up: np.ndarray
    made: np.ndarray  # float32, by a product
    pairs: np.ndarray  # words
    more_pairs: np.ndarray


@njit(**HELPER)
def _room(saved):
    wide, full = saved.mixed.shape[2], saved.up.shape[2]
    most = max(saved.qkv.shape[2], full)
    return Room(
        np.zeros((ROWS, wide), np.uint16),
        np.zeros((ROWS, full), np.uint16),
        np.zeros((ROWS, wide), np.uint16),
        np.zeros((ROWS, full), np.uint16),
        np.empty((ROWS, most), np.float32),
        np.empty(ROWS // 2 * most, np.uint32),
        np.empty(ROWS // 2 * most, np.uint32),
    )


@njit(**HELPER)
def _place(group, length, width, heads):
    """Of a head of a window: first row, length, C, head, H and the number of both."""
    window, h = divmod(group, heads)
    return window * length, length, width, h, heads, group


@njit(**HELPER)
def _through(x, start, matrix, made):
    """`made` = what a linear map, in words, makes of the `ROWS` of `x` from `start` on."""
    inputs, outputs = matrix.shape
    at, below = start * inputs, made.shape[1]
    product(x, at, inputs, 1, matrix, 0, outputs, inputs, made, 0, below, ROWS, outputs)


@njit(**HELPER)
def _learn(d, d_start, x, x_start, room, gradient):
    """What `ROWS` of `d`, known of what a map made of those of `x`, say of it."""
    (outputs, inputs), across = gradient.shape, d.shape[1]
    _pair_rows(d, d_start, ROWS, 0, across, room.pairs, across)
    _pair_rows(x, x_start, ROWS, 0, x.shape[1], room.more_pairs, x.shape[1])
    words = (room.pairs, 0, 1, across, room.more_pairs, 0, inputs, ROWS // 2)
    more_product(*words, gradient, 0, inputs, outputs, inputs)


@njit(**HELPER)
def _pair_rows(x, start, rows, column, columns, pairs, across):
    """Words of two of so many rows of `x` each, to rows of `pairs` that are `across` apart."""
    wide = x.shape[1]
    for r in range(0, rows, 2):
        first = (start + r) * wide + column
        for c in range(0, columns, FLOATS):
            pair_up(x, first + c, first + c + wide, pairs, r // 2 * across + c)


@njit(**HELPER)
def _pair_up_window(x, start, length, column, pairs, broad):
    """`_pair_rows` of all tokens of a window; behind the last one there is nothing but 0."""
    _pair_rows(x, start, length, column, broad, pairs, broad)
    if length % 2:
        at = length // 2 * broad
        for c in range(broad):
            pairs[at + c] &= np.uint32(0xFFFF)


@njit(**HELPER)
def _word(first, second):
    return np.uint32(rounded(first)) | np.uint32(np.uint32(rounded(second)) << np.uint32(16))


@njit(**HELPER)
def _up(count, step):
    return (count + step - 1) // step * step


@njit(**HELPER)
def _attention_room(length, deep):
    """Keys and values of a head in words, and what `LEAST` queries make of them."""
    whole, broad = _up(length, FLOATS), _up(deep, FLOATS)
    keys = np.zeros((deep // 2, whole), np.uint32)
    values = np.zeros(whole // 2 * broad, np.uint32)
    scores, found = np.empty((LEAST, whole), np.float32), np.empty((LEAST, broad), np.float32)
    return keys, values, scores, np.zeros((LEAST, whole), np.uint16), found


@njit(**HELPER)
def _attend(qkv, place, drop, sums, mixed, room):
    """What the queries of head `h` of a window find; `place` has where it is."""
    start, length, width, h, heads, group = place
    keys, values, scores, weights, found = room
    deep = width // heads
    first, whole, broad = h * deep, scores.shape[1], found.shape[1]
    words = qkv.view(np.uint32)
    _turn(words, start, length, (width + first) // 2, keys)
    _pair_up_window(qkv, start, length, 2 * width + first, values, broad)
    scale = _scale(deep)
    for i in range(0, length, LEAST):
        rows = min(LEAST, length - i)
        seen = _up(i + rows, FLOATS)
        at, row = (start + i) * words.shape[1] + first // 2, words.shape[1]
        product(words, at, row, 1, keys, 0, whole, deep // 2, scores, 0, whole, LEAST, seen)
        for r in range(rows):
            index = (group * length + i + r) * length
            n, known = start + i + r, i + r + 1
            top, sums_of_row = _hide(scores, r, known) * scale, spread(_ZERO)
            for j in range(0, known, FLOATS):
                weight = exp2(load(scores, r * whole + j) * scale - top)
                sums_of_row = sums_of_row + weight
                store_half(weights, r * whole + j, weight * _kept(drop, index + j))
            for j in range(_up(known, FLOATS), seen, FLOATS):
                store_half(weights, r * whole + j, spread(_ZERO))
            sums[n, h, 0], sums[n, h, 1] = top, _ONE / total(sums_of_row)
        half = whole // 2
        product(weights, 0, half, 1, values, 0, broad, seen // 2, found, 0, broad, LEAST, broad)
        for r in range(rows):
            for c in range(deep):
                mixed[start + i + r, first + c] = rounded(found[r, c] * sums[start + i + r, h, 1])


@njit(**HELPER)
def _hide(scores, r, known):
    """Of a row all but the `known` ones, up to a whole vector; the largest of these."""
    at, last = r * scores.shape[1], (known - 1) // FLOATS * FLOATS
    most = first_of(load(scores, at + last), known - last, -_INF)
    store(scores, at + last, most)
    for j in range(0, last, FLOATS):
        most = larger(most, load(scores, at + j))
    return largest(most)


@njit(**HELPER)
def _scale(deep):
    """Of scores, for powers of two in place of e."""
    return LOG2_E / np.sqrt(np.float32(deep))


@njit(**HELPER)
def _turn(x, start, length, column, turned):
    """`turned` [words, L]: those of the rows of `x` from a `column` on, as columns."""
    for j in range(length):
        for c in range(len(turned)):
            turned[c, j] = x[start + j, column + c]


@njit(**HELPER)
def _attention_back_room(length, deep):
    whole, broad = _up(length, FLOATS), _up(deep, FLOATS)
    values = np.zeros((deep // 2, whole), np.uint32)
    pairs = np.zeros((3, whole // 2 * broad), np.uint32)
    d_scores = np.empty((LEAST, whole), np.float32)
    used = np.zeros((ROWS, whole), np.uint16)
    slopes = np.zeros_like(used)
    paired = np.zeros(ROWS // 2 * whole, np.uint32)
    dk = np.empty((whole, broad), np.float32)
    dv = np.empty_like(dk)
    return values, pairs, d_scores, used, slopes, paired, dk, dv


@njit(**HELPER)
def _attend_back(qkv, place, drop, sums, mixed, d_mixed, d_qkv, room, back_room):
    """From what is known of `mixed`, in `d_mixed`, to what is of q, k and v, in `d_qkv`."""
    start, length, width, h, heads, _ = place
    keys, _, _, _, found = room
    values, pairs, _, used, slopes, paired, dk, dv = back_room
    key_pairs, query_pairs, d_pairs = pairs[0], pairs[1], pairs[2]
    deep, (whole, broad) = width // heads, dk.shape
    first = h * deep
    words = qkv.view(np.uint32)
    _turn(words, start, length, (width + first) // 2, keys)
    _turn(words, start, length, (2 * width + first) // 2, values)
    _pair_up_window(qkv, start, length, first, query_pairs, broad)
    _pair_up_window(qkv, start, length, width + first, key_pairs, broad)
    _pair_up_window(d_mixed, start, length, first, d_pairs, broad)
    for j in range(whole):
        for c in range(broad):
            dk[j, c] = dv[j, c] = _ZERO
    for begin in range(0, length, ROWS):
        stop = min(begin + ROWS, length)
        for i in range(begin, stop, LEAST):
            part = i, i - begin, min(LEAST, length - i), _up(stop, FLOATS)
            _scores_back(qkv, place, part, drop, sums, mixed, d_mixed, room, back_room)
            at, half, seen = (i - begin) * (whole // 2), whole // 2, _up(i + part[2], FLOATS)
            result = (found, 0, broad, LEAST, broad)
            product(slopes, at, half, 1, key_pairs, 0, broad, seen // 2, *result)
            for r in range(part[2]):
                for c in range(deep):
                    d_qkv[start + i + r, first + c] = rounded(found[r, c])
        count, at, rows = (stop - begin + 1) // 2, begin // 2 * broad, _up(stop, LEAST)
        for d, read, into in ((slopes, query_pairs, dk), (used, d_pairs, dv)):
            _pair_rows(d, 0, 2 * count, 0, _up(stop, FLOATS), paired, whole)
            more_product(paired, 0, 1, whole, read, at, broad, count, into, 0, broad, rows, broad)
    for j in range(length):
        for c in range(deep):
            d_qkv[start + j, width + first + c] = rounded(dk[j, c])
            d_qkv[start + j, 2 * width + first + c] = rounded(dv[j, c])


@njit(**HELPER)
def _scores_back(qkv, place, part, drop, sums, mixed, d_mixed, room, back_room):
    """The weights that `LEAST` queries used, and what is known of their scores: rows of both.

    `part` has the first of them in the window and in these rows, how many there are, and how many
    keys the rows have.
    """
    start, length, width, h, heads, group = place
    i, q, rows, columns = part
    keys, _, scores, _, _ = room
    values, _, d_scores, used, slopes, _, _, _ = back_room
    deep, whole, seen = width // heads, scores.shape[1], _up(i + rows, FLOATS)
    words, d_words, first = qkv.view(np.uint32), d_mixed.view(np.uint32), h * deep
    at, row = (start + i) * words.shape[1] + first // 2, words.shape[1]
    product(words, at, row, 1, keys, 0, whole, deep // 2, scores, 0, whole, LEAST, seen)
    at, row = (start + i) * d_words.shape[1] + first // 2, d_words.shape[1]
    product(d_words, at, row, 1, values, 0, whole, deep // 2, d_scores, 0, whole, LEAST, seen)
    powers, scale = _scale(deep), _ONE / np.sqrt(np.float32(deep))
    for r in range(LEAST):
        n, to, known = start + i + r, (q + r) * whole, 0
        if r < rows:
            known, top, share, mean = i + r + 1, sums[n, h, 0], sums[n, h, 1], _ZERO
            for c in range(first, first + deep):
                mean += to_float(d_mixed[n, c]) * to_float(mixed[n, c])
            _hide(scores, r, known)
            for j in range(0, known, FLOATS):
                weight = exp2(load(scores, r * whole + j) * powers - top) * share
                kept = _kept(drop, (group * length + i + r) * length + j)
                slope = weight * (load(d_scores, r * whole + j) * kept - mean) * scale
                store_half(used, to + j, weight * kept)
                store_half(slopes, to + j, slope)
        for j in range(_up(known, FLOATS), columns, FLOATS):
            store_half(used, to + j, spread(_ZERO))
            store_half(slopes, to + j, spread(_ZERO))


@njit(**HELPER)
def _normalise(x, row, width, norm, layer, y, r, stats):
    """Row `r` of `y` = the layer normalisation of a `row` of `x`; `stats`: mean, 1 / deviation."""
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
    _normalise_again(x, row, norm, layer, y, r, stats)


@njit(**HELPER)
def _normalise_again(x, row, norm, layer, y, r, stats):
    wide = x.shape[1]
    minus, scale = spread(-stats[row, 0]), spread(stats[row, 1])
    for c in range(0, wide, FLOATS):
        normal = (load(x, row * wide + c) + minus) * scale
        gain, shift = load(norm, 2 * layer * wide + c), load(norm, (2 * layer + 1) * wide + c)
        store_half(y, r * wide + c, normal * gain + shift)


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
        change = change * _kept(drop, row * wide + c)
        store(z, row * wide + c, load(x, row * wide + c) + change)


@njit(**HELPER)
def _add_back(dx, row, drop, d, r, sums, layer):
    """What a `row` of `dx` says of what was added there, to `d`; the bias's `sums` grow by it."""
    wide = dx.shape[1]
    for c in range(0, wide, FLOATS):
        change = load(dx, row * wide + c) * _kept(drop, row * wide + c)
        store_half(d, r * wide + c, change)
        store(sums, layer * wide + c, load(sums, layer * wide + c) + change)


@njit(**HELPER)
def _drop(drops, layer, which):
    if drops is None:
        return None
    keys = drops.keys[layer, which]
    return Drop(keys[0], keys[1], drops.below[which], drops.gain[which])


@njit(**HELPER)
def _kept(drop, index):
    """By what dropout multiplies sixteen numbers from an index on: 0, or what keeps the mean."""
    if drop is None:
        return spread(_ONE)
    return dropped(np.uint32(index), drop.key, drop.other_key, drop.below, drop.gain)
