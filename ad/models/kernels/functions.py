"""Elementwise functions of the compiled loops, of vectors of sixteen float32 lanes.

Numba's cache does not see a change in this file: see `llvm.py`.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from ad.models.kernels.simd import (
    absolute,
    broadcast,
    dropout_mask,
    floor,
    ldexp,
    maximum,
    minimum,
    reciprocal,
    where_negative,
)
from ad.runtime.parallel import NUMBA_INLINE

LOG2_E = np.float32(1 / math.log(2))

_HALF, _ONE = np.float32(0.5), np.float32(1)
_MIN_EXPONENT = np.float32(-126)  # 2 ** -126 is the smallest normal number
_EXP2 = tuple(  # coefficients of 2 ** x for x in [0, 1], to 2e-7
    np.float32(c)
    for c in np.polynomial.Chebyshev.interpolate(np.exp2, 5, domain=[0, 1])
    .convert(kind=np.polynomial.Polynomial)
    .coef
)
# Coefficients of 1 - erf(x), to 1.5e-7 (Abramowitz and Stegun 1964, 7.1.26)
_ERFC = tuple(
    np.float32(c) for c in (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
)
_ERFC_SCALE = np.float32(0.3275911 / math.sqrt(2))
# Coefficients of GELU(x) / x - 1/2 and GELU'(x) - 1/2 as odd polynomials for |x| <= `_GELU_LIMIT`,
# beyond which both are constant: minimax, by least squares with the weights of Lawson (1961)
_GELU_LIMIT = np.float32(4)
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
_GELU_DERIVATIVE = tuple(
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


@njit(**NUMBA_INLINE)
def gelu(x):
    """Return GELU(x) (Hendrycks and Gimpel 2016, section 2)."""
    gaussian = exp2(x * x * (-_HALF * LOG2_E))  # e ** (-x ** 2 / 2)
    t = reciprocal(absolute(x) * _ERFC_SCALE + _ONE)
    tail = t * (_ERFC[0] + t * (_ERFC[1] + t * (_ERFC[2] + t * (_ERFC[3] + t * _ERFC[4]))))
    tail = tail * gaussian * _HALF
    return x * where_negative(x, tail, _ONE - tail)


@njit(**NUMBA_INLINE)
def gelu_poly(x):
    """Return GELU(x) from a polynomial, for results that are rounded to bfloat16.

    The error is at most 1e-4, or 3e-5 of the result.
    """
    return gelu_poly_and_derivative(x)[0]


@njit(**NUMBA_INLINE)
def gelu_poly_and_derivative(x):
    """Return `gelu_poly(x)` and GELU'(x), with an error of at most 3e-4."""
    floored = maximum(x, broadcast(-_GELU_LIMIT))
    clamped = minimum(floored, broadcast(_GELU_LIMIT))
    square = clamped * clamped
    value = floored * _odd_poly_plus_half(clamped, square, _GELU)
    return value, _odd_poly_plus_half(clamped, square, _GELU_DERIVATIVE)


@njit(**NUMBA_INLINE)
def _odd_poly_plus_half(x, square, c):
    """Return 1/2 + an odd polynomial of `x`, whose `square` is given, with coefficients `c`."""
    high = c[4] + square * (c[5] + square * (c[6] + square * c[7]))
    odd = c[0] + square * (c[1] + square * (c[2] + square * (c[3] + square * high)))
    return x * odd + _HALF


@njit(**NUMBA_INLINE)
def exp2(x):
    """Return 2 ** x for x <= 0, at least 2 ** -126."""
    x = maximum(x, broadcast(_MIN_EXPONENT))
    whole = floor(x)
    r, c = x - whole, _EXP2
    power = c[0] + r * (c[1] + r * (c[2] + r * (c[3] + r * (c[4] + r * c[5]))))
    return ldexp(power, whole)


class Dropout(NamedTuple):
    """Dropout of one array: a mask that is recomputed from a hash of the index, never stored."""

    key0: np.uint32
    key1: np.uint32
    threshold: np.uint32  # numbers whose hash is below it are dropped
    scale: np.float32  # of the others, 1 / (1 - p)


@njit(**NUMBA_INLINE)
def dropout_scale(dropout, index):
    """Return the factors, 0 or `dropout.scale`, of sixteen numbers from `index` on.

    They are 1 if `dropout` is None.
    """
    if dropout is None:
        return broadcast(_ONE)
    key0, key1 = dropout.key0, dropout.key1
    return dropout_mask(np.uint32(index), key0, key1, dropout.threshold, dropout.scale)
