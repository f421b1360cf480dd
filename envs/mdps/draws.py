"""Counter-based draws for K tasks, each of which depends on the task's key only."""

import numpy as np

from envs.rng import normal, uniform


def uniforms(keys: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Draw numbers in [0, 1) for each of `keys`, uint64 [K]: float64 [K, *shape]."""
    counters = np.arange(np.prod(shape, dtype=np.int64), dtype=np.uint64)
    return uniform(keys[:, None], counters).reshape(len(keys), *shape)


def normals(keys: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Draw standard normal numbers for each of `keys`: float64 [K, *shape]."""
    first, second = np.moveaxis(uniforms(keys, (2, *shape)), 1, 0)
    return normal(first, second)


def dirichlets(keys: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Draw probabilities from flat Dirichlet distributions over the last axis: [K, *shape].

    Independent exponential numbers, divided by their sum, have that distribution.
    """
    weights = -np.log1p(-uniforms(keys, shape))
    return weights / weights.sum(-1, keepdims=True)


def sparse_transitions(
    set_keys: np.ndarray,
    weight_keys: np.ndarray,
    allowed: np.ndarray,
    num_actions: int,
    branching: int,
) -> np.ndarray:
    """Draw transitions with `branching` different successors for each pair: float64 [K, S, A, S].

    Each set of successors that `allowed`, bool [S, S], contains is equally likely, and their
    probabilities are a draw from a flat Dirichlet distribution.
    """
    num_states = len(allowed)
    order = uniforms(set_keys, (num_states, num_actions, num_states))
    order[:, ~allowed[:, None].repeat(num_actions, 1)] = np.inf
    successors = np.argsort(order, axis=-1)[..., :branching]
    transitions = np.zeros(order.shape)
    weights = dirichlets(weight_keys, successors.shape[1:])
    np.put_along_axis(transitions, successors, weights, axis=-1)
    return transitions
