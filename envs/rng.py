"""Counter-based random streams: a number depends on its key and its counter, never on the batch.

`derive_key` turns (seed, purpose, index, ...) into a 64-bit key; `uniform` draws the number at a
given counter of each key's stream. An environment gets the same numbers alone, in any batch and
after an interruption. The mixing is SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable
pseudorandom number generators", section 4), applied twice so that neighboring keys and counters do
not correlate.
"""

import hashlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)


def derive_key(*words: int | str) -> int:
    """Derive an unsigned 64-bit key from any words, e.g. `derive_key(source_seed, "a2c", task)`."""
    text = "\x1f".join(f"{type(word).__name__}:{word}" for word in words)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def uniform(keys: np.ndarray | np.uint64, counters: np.ndarray | int) -> np.ndarray:
    """Draw numbers in [0, 1), float64, of the broadcast shape of `keys` and `counters` (uint64)."""
    with np.errstate(over="ignore"):
        mixed = _mix(_mix(np.asarray(keys, np.uint64)) + np.asarray(counters, np.uint64) * _GOLDEN)
    return (mixed >> np.uint64(11)) * 2.0**-53


def normal(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Turn pairs of independent uniforms in [0, 1) into standard normal numbers, float64.

    Box and Muller 1958, "A note on the generation of random normal deviates".
    """
    return np.sqrt(-2 * np.log1p(-first)) * np.cos(2 * np.pi * second)


def draw_allowed(allowed: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Draw a column that is `allowed`, bool [M, C], by each of the uniforms `u` [M]; int64 [M]."""
    number = (u * allowed.sum(1)).astype(np.int64)  # among the allowed ones
    return (allowed.cumsum(1) <= number[:, None]).sum(1)


def _mix(z: np.ndarray) -> np.ndarray:
    z = z + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX1
    z = (z ^ (z >> np.uint64(27))) * _MIX2
    return z ^ (z >> np.uint64(31))
