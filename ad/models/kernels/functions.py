"""Arithmetic that the compiled loops share, with sixteen floats at a time.

As with `simd.py`, numba's cache does not see a change here.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from ad.models.kernels.simd import (
    absolute,
    as_float,
    below_zero,
    dropped,
    floor,
    inverse,
    larger,
    smaller,
    spread,
    times_power,
)
from ad.runtime.parallel import HELPER

LOG2_E = np.float32(1 / math.log(2))

_HALF, _ONE = np.float32(0.5), np.float32(1)
_FAINT = np.float32(-126)  # 2 ** -126 is the smallest normal number
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
# GELU(x) / x and GELU'(x), less 1/2, as odd polynomials for |x| <= `_FAR`, where both end: with the
# smallest largest error of GELU(x) and GELU'(x), found by least squares that Lawson (1961) weights
_FAR = np.float32(4)
_GELU = tuple(
    np.float32(c)
    for c in (
        0.3988363,
        -0.066104379,
        0.0096027589,
        -0.0010270089,
        7.7120174e-05,
        -3.7901611e-06,
        1.0804033e-07,
        -1.3423655e-09,
    )
)
_SLOPE = tuple(
    np.float32(c)
    for c in (
        0.79672159,
        -0.26202971,
        0.055914722,
        -0.0076874062,
        0.00068763932,
        -3.8459015e-05,
        1.2137807e-06,
        -1.6419323e-08,
    )
)


@njit(**HELPER)
def gelu(x):
    """GELU (Hendrycks and Gimpel 2016, section 2)."""
    return x * _normal(x, _bell(x))


@njit(**HELPER)
def rough_gelu(x):
    """The same for numbers that will be bfloat16: off by at most 1e-4, or by 3e-5 of it."""
    floored, near, square = _near(x)
    return floored * _half_and(near, square, _GELU)


@njit(**HELPER)
def rough_gelu_and_slope(x):
    """That and the derivative, which is off by at most 3e-4."""
    floored, near, square = _near(x)
    value = floored * _half_and(near, square, _GELU)
    return value, _half_and(near, square, _SLOPE)


@njit(**HELPER)
def _near(x):
    """`x`, but at least -`_FAR`; that, but at most `_FAR`; and the square of that."""
    floored = larger(x, spread(-_FAR))
    near = smaller(floored, spread(_FAR))
    return floored, near, near * near


@njit(**HELPER)
def _half_and(x, square, c):
    """1/2 and an odd polynomial of `x`."""
    high = c[4] + square * (c[5] + square * (c[6] + square * c[7]))
    odd = c[0] + square * (c[1] + square * (c[2] + square * (c[3] + square * high)))
    return x * odd + _HALF


@njit(**HELPER)
def _bell(x):
    """e ** (-x ** 2 / 2)."""
    return exp2(x * x * (-_HALF * LOG2_E))


@njit(**HELPER)
def _normal(x, bell):
    """The distribution function of the standard normal; `bell` is `_bell(x)`."""
    t = inverse(absolute(x) * _ERFC_SCALE + _ONE)
    tail = t * (_ERFC[0] + t * (_ERFC[1] + t * (_ERFC[2] + t * (_ERFC[3] + t * _ERFC[4]))))
    tail = tail * bell * _HALF
    return below_zero(x, tail, _ONE - tail)


@njit(**HELPER)
def exp2(x):
    """2 ** x for x <= 0, at least 2 ** -126."""
    x = larger(x, spread(_FAINT))
    whole = floor(x)
    r, c = x - whole, _EXP2
    power = c[0] + r * (c[1] + r * (c[2] + r * (c[3] + r * (c[4] + r * c[5]))))
    return times_power(power, whole)


@njit(**HELPER)
def to_float(half):
    """The float32 of one bfloat16 (uint16), which is its upper half."""
    return as_float(np.int32(half) << np.int32(16))


class Drop(NamedTuple):
    """Dropout of one array: the same numbers whenever it is asked, so that no mask is kept."""

    key: np.uint32
    other_key: np.uint32
    below: np.uint32  # where a hash is dropped
    gain: np.float32  # of what is kept


@njit(**HELPER)
def kept(drop, index):
    """By what `drop` multiplies sixteen numbers from an index on: 0, or what keeps the mean.

    None drops nothing.
    """
    if drop is None:
        return spread(_ONE)
    return dropped(np.uint32(index), drop.key, drop.other_key, drop.below, drop.gain)
