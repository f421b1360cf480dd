"""Value targets as pure functions: one equation each, time along the first axis.

A step that terminates has no further return. A step that is only truncated (the time limit)
bootstraps from the value of the final observation. Both end the recursion (Pardo et al. 2018,
section 3).
"""

import numpy as np


def n_step_returns(
    rewards: np.ndarray,
    terminated: np.ndarray,
    truncated: np.ndarray,
    next_values: np.ndarray,
    discount: float | np.ndarray,
) -> np.ndarray:
    """Compute n-step returns to the end of the rollout (Mnih et al. 2016, algorithm S3).

        G_t = r_t + γ (1 - terminated_t) · (V(s'_t) if truncated_t or t is last, else G_{t+1})

    The arguments are arrays [T, ...], except `discount`, whose shape broadcasts with [...].
    `next_values` are the values of the next observations: of the final observation at an episode's
    end, not of the first one after the reset. Returns float32 [T, ...].
    """
    returns = np.empty_like(next_values, dtype=np.float32)
    following = next_values[-1]
    for t in range(len(rewards) - 1, -1, -1):
        future = np.where(truncated[t], next_values[t], following)
        returns[t] = following = rewards[t] + discount * np.where(terminated[t], 0, future)
    return returns
