"""Dynamic programming for a batch of tabular MDPs.

`transitions`, float64 [K, S, A, S], holds the probability that the episode goes on in each next
state: a row sums to less than 1 where a step may terminate. `rewards`, float64 [K, S, A], holds the
expected rewards.
"""

from collections.abc import Iterator

import numpy as np

TIE = 1e-9  # actions whose values differ by less are equally good


def expected(transitions: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the expected value of the next state, [K, S, A], for values [K, S]."""
    num_tasks, num_states, num_actions, _ = transitions.shape
    rows = transitions.reshape(num_tasks, num_states * num_actions, num_states)
    return (rows @ values[..., None]).reshape(num_tasks, num_states, num_actions)


def action_values(transitions: np.ndarray, rewards: np.ndarray, steps: int) -> Iterator[np.ndarray]:
    """Yield the optimal action values, [K, S, A], with 1, 2, ..., `steps` steps to go.

    Q_1 = r and Q_h = r + P max Q_{h-1} (Bellman 1957).
    """
    values = rewards
    for step in range(steps):
        if step:
            values = rewards + expected(transitions, values.max(-1))
        yield values


def optimal_values(transitions: np.ndarray, rewards: np.ndarray, steps: int) -> np.ndarray:
    """Return the optimal expected return of `steps` steps from each state, float64 [K, S]."""
    *_, values = action_values(transitions, rewards, steps)
    return values.max(-1)


def policy_values(
    transitions: np.ndarray, rewards: np.ndarray, policy: np.ndarray, steps: int
) -> np.ndarray:
    """Return the expected return of a stationary `policy` from each state, float64 [K, S].

    policy: action probabilities that broadcast to [K, S, A].
    """
    values = np.zeros(rewards.shape[:2])
    for _ in range(steps):
        values = ((rewards + expected(transitions, values)) * policy).sum(-1)
    return values


def discounted_values(transitions: np.ndarray, rewards: np.ndarray, discount: float) -> np.ndarray:
    """Return the optimal discounted action values, float64 [K, S, A], by policy iteration.

    Howard 1960, "Dynamic programming and Markov processes". The values of a policy are exact: they
    solve its linear equations.
    """
    states = np.arange(rewards.shape[1])
    tasks = np.arange(len(rewards))[:, None]
    actions = rewards.argmax(-1)  # [K, S]
    while True:
        own = discount * transitions[tasks, states, actions]  # [K, S, S]
        paid = rewards[tasks, states, actions][..., None]
        values = np.linalg.solve(np.eye(len(states)) - own, paid)[..., 0]
        of_actions = rewards + discount * expected(transitions, values)
        better = of_actions.max(-1) > of_actions[tasks, states, actions] + TIE
        if not better.any():
            return of_actions
        actions = np.where(better, of_actions.argmax(-1), actions)


def greedy_policy(of_actions: np.ndarray) -> np.ndarray:
    """Return the probabilities [..., A] of a policy whose best actions have equal probability."""
    best = of_actions >= of_actions.max(-1, keepdims=True) - TIE
    return best / best.sum(-1, keepdims=True)
