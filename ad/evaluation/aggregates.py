"""Aggregates of scores over several worlds, and their bootstrap intervals (Agarwal et al. 2021).

`scores` are float [R, W]: R independent runs in each of W worlds, as fractions of the optimal
return or the like. A score of a run is already a mean over its tasks: all tasks of a run share one
model, so they are never resampled apart from each other.
"""

from collections.abc import Callable

import numpy as np
from scipy.stats import trim_mean

RESAMPLES = 2000


def interquartile_mean(scores: np.ndarray) -> float:
    """Return the mean of the middle half of all runs of all worlds (section 4.3)."""
    return float(trim_mean(scores, 0.25, axis=None))


def optimality_gap(scores: np.ndarray) -> float:
    """Return by how much runs miss a score of 1 on average; those above it miss it by 0."""
    return float(np.maximum(1 - scores, 0).mean())


def probability_of_improvement(scores: np.ndarray, others: np.ndarray) -> float:
    """Return how likely a run is to beat one of `others` [R', W] in a random world; ties half."""
    first, second = scores[:, None], others[None]
    return float(((first > second) + 0.5 * (first == second)).mean())


def performance_profile(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return the fraction of runs above each of `thresholds` [X], float [X] (section 4.2)."""
    return (scores[..., None] > thresholds).mean((0, 1))


def bootstrap_interval(
    statistic: Callable[..., float | np.ndarray],
    *scores: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95 % percentile interval of `statistic(*scores)`: low and high, of its shape.

    The runs of each world are drawn with replacement, apart from those of other worlds, which are
    independent trainings.
    """
    rng = np.random.default_rng(0)
    values = [statistic(*(_resample(own, rng) for own in scores)) for _ in range(RESAMPLES)]
    low, high = np.quantile(values, (0.025, 0.975), axis=0)
    return low, high


def _resample(scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return `scores` with as many runs of each world, drawn with replacement."""
    return np.take_along_axis(scores, rng.integers(len(scores), size=scores.shape), axis=0)
