"""Arithmetic that the compiled loops share, with sixteen floats at a time.

As with `ad/vectors.py`, numba's cache does not see a change here.
"""

import math

import numpy as np
from numba import njit

from ad.threads import HELPER
from ad.vectors import absolute, as_float, below_zero, floor, inverse, larger, power_of_two, spread

LOG2_E = np.float32(1 / math.log(2))

_HALF, _ONE = np.float32(0.5), np.float32(1)
_FAINT = np.float32(-126)  # 2 ** -126 is the smallest normal number
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


@njit(**HELPER)
def gelu(x):
    """GELU (Hendrycks and Gimpel 2016, section 2)."""
    return x * _normal(x, _bell(x))


@njit(**HELPER)
def gelu_and_slope(x):
    """GELU and its derivative."""
    bell = _bell(x)
    share = _normal(x, bell)
    return x * share, share + x * bell * _DENSITY


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
    return power * power_of_two(whole)


@njit(**HELPER)
def to_float(half):
    """The float32 of one bfloat16 (uint16), which is its upper half."""
    return as_float(np.int32(half) << np.int32(16))
