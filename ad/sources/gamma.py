"""Counter-based gamma numbers, which depend on their key and counter and on no batch."""

import numpy as np

from envs.rng import normal, uniform

COUNTERS = 1 << 44  # counters of one attempt; attempts have counters of their own


def standard_gamma(keys: np.ndarray, counters: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """Draw gamma numbers of scale 1, float64, of the broadcast shape of the three arguments.

    shapes: the shape parameters, at least 0; that of 0 gives 0. counters: integers below 2^42.
    Marsaglia and Tsang 2000, "A simple method for generating gamma variables"; for shapes below 1
    section 6.
    """
    keys, counters, shapes = np.broadcast_arrays(keys, counters, shapes)
    flat_keys = np.ascontiguousarray(keys).reshape(-1)
    first = 4 * np.ascontiguousarray(counters, np.uint64).reshape(-1)
    wanted = np.ascontiguousarray(shapes, np.float64).reshape(-1)
    drawn = _at_least_one(flat_keys, first, np.where(wanted < 1, wanted + 1, wanted))
    small = np.flatnonzero((wanted > 0) & (wanted < 1))
    u = 1 - uniform(flat_keys[small], first[small] + np.uint64(3))
    drawn[small] *= u ** (1 / wanted[small])
    return np.where(wanted > 0, drawn, 0.0).reshape(shapes.shape)


def _at_least_one(keys: np.ndarray, first: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """Draw gamma numbers with shape parameters of at least 1, float64 [M], by rejection."""
    d = shapes - 1 / 3
    c = 1 / np.sqrt(9 * d)
    drawn, pending, attempt = np.zeros(len(shapes)), np.arange(len(shapes)), 0
    while len(pending):
        counters = first[pending] + np.uint64(attempt * COUNTERS)
        u, v, w = (uniform(keys[pending], counters + np.uint64(k)) for k in range(3))
        x = normal(u, v)
        cube = (1 + c[pending] * x) ** 3
        is_positive = cube > 0
        log = np.log(np.where(is_positive, cube, 1))
        accepted = np.log1p(-w) < x**2 / 2 + d[pending] * (1 - cube + log)
        accepted &= is_positive
        drawn[pending[accepted]] = (d[pending] * cube)[accepted]
        pending = pending[~accepted]
        attempt += 1
    return drawn
