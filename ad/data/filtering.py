"""Which actors of a task to train on: those that improve much and steadily.

After learning history filtering (Chen et al. 2025, arXiv 2505.15143), which prefers the histories
with the largest improvement + weight * stability. There histories are drawn with a probability;
here the best ones are kept, so that no random numbers decide.
"""

import math
from collections.abc import Mapping

import numpy as np

from ad.data.episodes import episodes

ENDS = 10  # improvement compares the first and the last of so many equal parts of a history


def best_actors(
    history: Mapping[str, np.ndarray], fraction: float, stability_weight: float
) -> np.ndarray:
    """Return the indices of the actors with the highest scores, ascending.

    Of N actors ceil(fraction * N) are kept; of equal scores the first ones. `history` has the
    arrays [actors, T] of the fields terminated, truncated and reward.
    """
    scores = actor_scores(history, stability_weight)
    count = math.ceil(fraction * len(scores))
    return np.sort(np.argsort(-scores, kind="stable")[:count])


def actor_scores(history: Mapping[str, np.ndarray], stability_weight: float) -> np.ndarray:
    """Return improvement + stability_weight * stability of each actor, float64 [actors].

    Improvement is the mean return of the last tenth of an actor's whole episodes minus that of the
    first tenth (an episode at least). Stability is minus the mean absolute difference between the
    returns of an episode and the next. Both are divided by the range of the task's returns. An
    actor without a whole episode has -inf.
    """
    done = history["terminated"] | history["truncated"]
    found = episodes(done, history["reward"])
    scores = np.full(len(done), -np.inf)
    scale = np.ptp(found.returns) if len(found.returns) else 0.0
    for actor in np.unique(found.actor):
        returns = found.returns[found.actor == actor]
        end = math.ceil(len(returns) / ENDS)
        improvement = returns[-end:].mean() - returns[:end].mean()
        changes = np.abs(np.diff(returns)).sum() / max(len(returns) - 1, 1)
        scores[actor] = (improvement - stability_weight * changes) / (scale or 1.0)
    return scores
