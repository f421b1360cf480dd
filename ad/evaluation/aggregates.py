"""Aggregates of scores over several worlds (Agarwal et al. 2021).

`scores` are float [R, W]: R independent runs in each of W worlds, as fractions of the optimal
return or the like. A score of a run is already a mean over its tasks, which share one model. The
interval of an aggregate is Student's t over its values for one run each, scores [1, W]: three to
five runs are too few for a bootstrap, whose intervals would be too narrow.
"""

import numpy as np
from scipy.stats import trim_mean


def interquartile_mean(scores: np.ndarray) -> float:
    """Return the mean of the middle half of the scores, of all runs and worlds (section 4.3)."""
    return float(trim_mean(scores, 0.25, axis=None))


def probability_of_improvement(scores: np.ndarray, others: np.ndarray) -> float:
    """Return how likely a run is to beat one of `others` [R', W] in a random world; ties half."""
    first, second = scores[:, None], others[None]
    return float(((first > second) + 0.5 * (first == second)).mean())


def performance_profile(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return the fraction of runs above each of `thresholds` [X], float [X] (section 4.2)."""
    return (scores[..., None] > thresholds).mean((0, 1))
