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
    discount: float,
) -> np.ndarray:
    """Compute n-step returns to the end of the rollout (Mnih et al. 2016, algorithm S3).

        G_t = r_t + γ (1 - terminated_t) · (V(s'_t) if truncated_t or t is last, else G_{t+1})

    The arguments are arrays [T, ...], except `discount`. `next_values` are the values of the next
    observations: of the final observation at an episode's end, not of the first one after the
    reset. Returns float32 [T, ...].
    """
    returns = np.empty_like(next_values, dtype=np.float32)
    following = next_values[-1]
    for t in range(len(rewards) - 1, -1, -1):
        future = np.where(truncated[t], next_values[t], following)
        returns[t] = following = rewards[t] + discount * np.where(terminated[t], 0, future)
    return returns


def generalized_advantages(
    rewards: np.ndarray,
    terminated: np.ndarray,
    truncated: np.ndarray,
    values: np.ndarray,
    next_values: np.ndarray,
    discount: float,
    decay: float,
) -> np.ndarray:
    """Compute generalized advantages (Schulman et al. 2016, equation 16), cut at a rollout's end.

        δ_t = r_t + γ (1 - terminated_t) V(s'_t) - V(s_t)
        A_t = δ_t + γ λ (1 - terminated_t) (1 - truncated_t) A_{t+1}

    The arguments are arrays [T, ...], except `discount` γ and `decay` λ. `next_values` are V(s'),
    with s' the final observation at an episode's end. Returns an array [T, ...] of the dtype of δ.
    """
    errors = rewards + discount * np.where(terminated, 0, next_values) - values
    advantages, following = np.empty_like(errors), np.zeros_like(errors[0])
    for t in range(len(rewards) - 1, -1, -1):
        continues = ~(terminated[t] | truncated[t])
        advantages[t] = following = errors[t] + discount * decay * np.where(continues, following, 0)
    return advantages
