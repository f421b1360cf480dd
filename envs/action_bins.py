"""Continuous actions as a few numbered ones: the methods of the suite choose among numbers."""

import itertools
import math

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

MAX_ACTIONS = 1024  # products of bins grow fast with the dimensions


class ActionBins(gymnasium.ActionWrapper):
    """An environment with a bounded Box of actions, of which it has `actions`, by their numbers.

    bins: numbers for each dimension, or one number for all: that many values at equal distances
    from its lowest to its highest action, and all combinations of them. Where there are too many,
    a list of actions instead, each with a number for every dimension. Tavakoli et al. 2018
    (arXiv 1711.08946) has bins for each dimension, without combinations.

    Raises ValueError if `bins` does not fit the action space, or makes more than 1,024 actions.
    """

    def __init__(self, env: gymnasium.Env, bins: int | list[int] | list[list[float]]):
        super().__init__(env)
        space = env.action_space
        if not isinstance(space, Box) or not space.is_bounded():
            raise ValueError(f"action_bins is for a bounded Box of actions, not for {space}")
        self.actions = _actions(space, bins)
        self.action_space = Discrete(len(self.actions))

    def action(self, action: int) -> np.ndarray:
        """Return the continuous action with a number, an array of its own."""
        return self.actions[action].copy()


def _actions(space: Box, bins) -> np.ndarray:
    """Return the actions [A, ...] in the shape and dtype of `space`."""
    size = math.prod(space.shape)
    if isinstance(bins, list) and bins and all(isinstance(action, list) for action in bins):
        actions = _listed(bins, size)
    else:
        actions = _combinations(space, bins if isinstance(bins, list) else [bins] * size)
    actions = actions.reshape(-1, *space.shape).astype(space.dtype)
    if outside := [action.tolist() for action in actions if not space.contains(action)]:
        raise ValueError(f"action_bins: {outside[0]} is not in {space}")
    if len(np.unique(actions, axis=0)) < len(actions):
        raise ValueError(f"action_bins makes equal actions in {space}: {actions.tolist()}")
    return actions


def _listed(actions: list[list[float]], size: int) -> np.ndarray:
    if {len(action) for action in actions} != {size} or not 2 <= len(actions) <= MAX_ACTIONS:
        raise ValueError(
            f"action_bins must list 2 to {MAX_ACTIONS:,} actions of {size} numbers, got {actions}"
        )
    try:
        return np.array(actions, float)
    except (TypeError, ValueError):
        raise ValueError(f"action_bins must list actions of numbers, got {actions}") from None


def _combinations(space: Box, bins: list[int]) -> np.ndarray:
    low, high = space.low.ravel(), space.high.ravel()
    if len(bins) != len(low) or not all(type(count) is int and count >= 2 for count in bins):
        raise ValueError(
            f"action_bins must be an integer from 2, or {len(low)} of them in a list, got {bins}"
        )
    if math.prod(bins) > MAX_ACTIONS:
        raise ValueError(
            f"action_bins makes {math.prod(bins):,} actions of {len(bins)} dimensions, at most "
            f"{MAX_ACTIONS:,} are possible: list some actions instead"
        )
    values = [np.linspace(*ends) for ends in zip(low, high, bins, strict=True)]
    return np.array(list(itertools.product(*values)))
