"""The attention of `training_loops.py`: causal, of one head of a window at a time.

`FLOATS` queries go through it together, each in a lane of its own, so that the largest score, the
sum and the weights of all of them are operations between vectors. Of the weights only what makes
them again is kept: each query's largest score and sum (Dao et al. 2022, section 3.1). Keys behind
the last query that asks are not multiplied at all.

Rows of `qkv` [N and more, 3 C], bfloat16, hold queries, keys and values of all heads. A window's
last queries may share a vector with rows of the next one: their lanes count for nothing.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from ad.models.kernels.functions import LOG2_E, exp2, kept, to_float
from ad.models.kernels.gemm import more_product, product
from ad.models.kernels.simd import (
    FLOATS,
    first_of,
    inverse,
    larger,
    last_from,
    load,
    load_half,
    pair_up,
    rounded,
    spread,
    store,
    store_half,
    store_pair,
    total,
    turn,
)
from ad.runtime.parallel import HELPER

QUERIES = 64  # whose keys learn together; in whole vectors

_ZERO, _ONE, _INF = (np.float32(x) for x in (0, 1, np.inf))


class Place(NamedTuple):
    """A head of a window: where it is."""

    start: int  # row of the window's first token
    near: int  # the same in what is known
    length: int  # L
    width: int  # C
    deep: int  # D, even
    head: int
    group: int  # its number among the heads of all windows


class AttentionRoom(NamedTuple):
    """For one head of a window; L and D are filled up to whole vectors. Zeros at first.

    `queries`, `known` and `pairs` stay 0 behind L. What is behind D counts for nothing.
    """

    queries: np.ndarray  # words [D / 2, L]
    known: np.ndarray  # words [D / 2, L], of what is known of what they found
    pairs: np.ndarray  # words [3, L / 2 * D], of two tokens: values; or q, k and `known`
    scores: np.ndarray  # float32 [L, FLOATS], of keys and a vector of queries
    d_scores: np.ndarray  # float32 [QUERIES, FLOATS], what is known of some of them
    weights: np.ndarray  # words [L / 2, FLOATS], of two keys: weights; or `slopes`
    found: np.ndarray  # float32 [FLOATS, D]
    means: np.ndarray  # float32 [FLOATS]
    used: np.ndarray  # bfloat16 [L, QUERIES]: weights
    slopes: np.ndarray  # bfloat16 [L, QUERIES], what is known of scores
    dk: np.ndarray  # float32 [L, D]
    dv: np.ndarray


@njit(**HELPER)
def attend(qkv, place, drop, sums, mixed, room):
    """What the queries at a `place` find, to `mixed` [N, C]; fills `sums` [H, 2, N and more]."""
    start, length, first, deep = place.start, place.length, place.head * place.deep, place.deep
    words, across, scores = qkv.view(np.uint32), qkv.shape[1] // 2, room.scores
    whole, broad, values, found = room.queries.shape[1], room.dk.shape[1], room.pairs[0], room.found
    _turn(words, start, length, first // 2, deep // 2, room.queries)
    _pair_up(qkv, start, length, 2 * place.width + first, values, broad)
    scale, at_keys = _powers(deep), start * across + (place.width + first) // 2
    for i in range(0, length, FLOATS):
        seen, index = i + FLOATS, place.group * length * length + i
        part = room.queries, i, whole, deep // 2
        product(words, at_keys, across, 1, *part, scores, 0, FLOATS, seen, FLOATS)
        top, sums_of_weights = _hide(scores, i) * scale, spread(_ZERO)
        for j in range(0, seen, 2):
            one = exp2(load(scores, j * FLOATS) * scale - top)
            other = exp2(load(scores, j * FLOATS + FLOATS) * scale - top)
            sums_of_weights = sums_of_weights + (one + other)
            one = one * kept(drop, index + j * length)
            other = other * kept(drop, index + j * length + length)
            store_pair(room.weights, j // 2 * FLOATS, one, other)
        at = 2 * place.head * sums.shape[2] + start + i
        store(sums, at, top)
        store(sums, at + sums.shape[2], inverse(sums_of_weights))
        result = found, 0, broad, FLOATS, broad
        product(room.weights, 0, 1, FLOATS, values, 0, broad, seen // 2, *result)
        for r in range(min(FLOATS, length - i)):
            _put(found, r, sums[place.head, 1, start + i + r], deep, mixed, start + i + r, first)


@njit(**HELPER)
def attend_back(qkv, place, drop, sums, mixed, d_mixed, d_qkv, room):
    """From what is known of `mixed`, in `d_mixed`, to what is of q, k and v, in `d_qkv`."""
    start, near, length, deep = place.start, place.near, place.length, place.deep
    first = place.head * deep
    (whole, broad), width, found, dk, dv = room.dk.shape, place.width, room.found, room.dk, room.dv
    queries, keys, known = room.pairs[0], room.pairs[1], room.pairs[2]
    _turn(qkv.view(np.uint32), start, length, first // 2, deep // 2, room.queries)
    _turn(d_mixed.view(np.uint32), near, length, first // 2, deep // 2, room.known)
    _pair_up(qkv, start, length, first, queries, broad)
    _pair_up(qkv, start, length, width + first, keys, broad)
    _pair_up(d_mixed, near, length, first, known, broad)
    for j in range(whole):
        for c in range(broad):
            dk[j, c] = dv[j, c] = _ZERO
    for begin in range(0, length, QUERIES):
        stop = min(begin + QUERIES, whole)
        for i in range(begin, stop, FLOATS):
            _scores_back(qkv, place, i, i - begin, drop, sums, mixed, d_mixed, room)
            part, result = (keys, 0, broad, (i + FLOATS) // 2), (found, 0, broad, FLOATS, broad)
            product(room.weights, 0, 1, FLOATS, *part, *result)
            for r in range(min(FLOATS, length - i)):
                _put(found, r, _ONE, deep, d_qkv, near + i + r, first)
        for j in range(0, stop, FLOATS):
            before = max(j - begin, 0)  # queries that know nothing of these keys
            word, pair = j * (QUERIES // 2) + before // 2, (begin + before) // 2 * broad
            count = (stop - begin - before) // 2
            for d, read, into in ((room.slopes, queries, dk), (room.used, known, dv)):
                part = d, word, QUERIES // 2, 1, read, pair, broad
                more_product(*part, count, into, j * broad, broad, FLOATS, broad)
    for j in range(length):
        _put(dk, j, _ONE, deep, d_qkv, near + j, width + first)
        _put(dv, j, _ONE, deep, d_qkv, near + j, 2 * width + first)


@njit(**HELPER)
def _scores_back(qkv, place, i, column, drop, sums, mixed, d_mixed, room):
    """The weights that the queries from `i` on used, and what is known of their scores.

    They go to a `column` of `used` and `slopes`, the latter to `weights` too.
    """
    start, length, first, deep = place.start, place.length, place.head * place.deep, place.deep
    words, across, whole = qkv.view(np.uint32), qkv.shape[1] // 2, room.queries.shape[1]
    scale, left, at = _ONE / np.sqrt(np.float32(deep)), length - i, start + i
    for r in range(min(FLOATS, left)):
        room.means[r] = _dot(d_mixed, place.near + i + r, mixed, at + r, first, deep) * scale
    row = 2 * place.head * sums.shape[2] + at
    top = first_of(load(sums, row), left, _ZERO)
    share = first_of(load(sums, row + sums.shape[2]), left, _ZERO)
    mean = first_of(load(room.means, 0), left, _ZERO)
    of_queries = top, share, mean, _powers(deep), scale
    for begin in range(0, i + FLOATS, QUERIES):
        row, count = (start + begin) * across, min(QUERIES, i + FLOATS - begin)
        for what, of, into in (
            (place.width + first, room.queries, room.scores),
            (2 * place.width + first, room.known, room.d_scores),
        ):
            part = words, row + what // 2, across, 1, of, i, whole, deep // 2
            product(*part, into, 0, FLOATS, count, FLOATS)
        for j in range(0, count, 2):
            key = begin + j
            index, to = (place.group * length + key) * length + i, key * QUERIES
            one, d_one = _score_back(room, j, drop, index, key - i, *of_queries)
            index += length
            other, d_other = _score_back(room, j + 1, drop, index, key + 1 - i, *of_queries)
            store_half(room.used, to + column, one)
            store_half(room.used, to + QUERIES + column, other)
            store_half(room.slopes, to + column, d_one)
            store_half(room.slopes, to + QUERIES + column, d_other)
            store_pair(room.weights, key // 2 * FLOATS, d_one, d_other)


@njit(**HELPER)
def _score_back(room, j, drop, index, behind, top, share, mean, powers, scale):
    """The weights that queries gave the key of row `j` of `scores`, and what is known of these.

    `behind`: the first query that sees this key, less the first of the vector.
    """
    gain = kept(drop, index)
    weight = exp2(load(room.scores, j * FLOATS) * powers - top) * share
    slope = weight * (load(room.d_scores, j * FLOATS) * gain * scale - mean)
    weight = weight * gain
    if behind >= 0:
        return last_from(weight, behind, _ZERO), last_from(slope, behind, _ZERO)
    return weight, slope


@njit(**HELPER)
def _hide(scores, i):
    """Of the queries from `i` on what comes behind each; the largest of the other `scores`."""
    most = spread(-_INF)
    for j in range(i):
        most = larger(most, load(scores, j * FLOATS))
    for j in range(i, i + FLOATS):
        score = last_from(load(scores, j * FLOATS), j - i, -_INF)
        store(scores, j * FLOATS, score)
        most = larger(most, score)
    return most


@njit(**HELPER)
def _powers(deep):
    """The scale of scores, for powers of two in place of e."""
    return LOG2_E / np.sqrt(np.float32(deep))


@njit(**HELPER)
def _turn(words, start, length, column, count, turned):
    """`turned` [`count` and more, L]: the rows of a window from a `column` on, as columns."""
    across, whole = words.shape[1], turned.shape[1]
    for c in range(0, count, FLOATS):
        for j in range(0, length, FLOATS):
            at, to = (start + j) * across + column + c, c * whole + j
            turn(words, at, across, turned, to, whole)
    for c in range(count):
        for j in range(length, whole):
            turned[c, j] = 0  # the next window's


@njit(**HELPER)
def _pair_up(x, start, length, column, pairs, broad):
    """Words of two tokens of a window each; behind the last one there is nothing but 0."""
    wide = x.shape[1]
    for j in range(0, length, 2):
        at = (start + j) * wide + column
        for c in range(0, broad, FLOATS):
            pair_up(x, at + c, at + c + wide, pairs, j // 2 * broad + c)
    if length % 2:
        for c in range(broad):
            pairs[length // 2 * broad + c] &= np.uint32(0xFFFF)


@njit(**HELPER)
def _dot(a, row, b, other_row, first, deep):
    """The product of `deep` places of a row of each, from the `first` on."""
    at, other = row * a.shape[1] + first, other_row * b.shape[1] + first
    whole, sums = deep // FLOATS * FLOATS, spread(_ZERO)
    for c in range(0, whole, FLOATS):
        sums = load_half(a, at + c) * load_half(b, other + c) + sums
    result = total(sums)
    for c in range(first + whole, first + deep):
        result += to_float(a[row, c]) * to_float(b[other_row, c])
    return result


@njit(**HELPER)
def _put(found, r, share, deep, x, row, first):
    """A `share` of row `r` of `found` to `deep` places of a `row` of `x`, from the `first` on."""
    whole = deep // FLOATS * FLOATS
    for c in range(0, whole, FLOATS):
        value = load(found, r * found.shape[1] + c) * share
        store_half(x, row * x.shape[1] + first + c, value)
    for c in range(whole, deep):
        x[row, first + c] = rounded(found[r, c] * share)
