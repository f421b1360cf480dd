"""Probe worlds: so small that the exact values are known, each a test of one ability of a learner.

`values(discount)` are those of an optimal policy by observation, NaN for one that is not met. A
learner that fails at one of the first worlds need not be tried on the later ones.
"""

from typing import ClassVar

import numpy as np
from gymnasium.spaces import Discrete

from envs.world import World


class Probe(World):
    """Episodes of `length` steps, each with a random cue, 0 or 1, that is drawn at its start."""

    length, observations, actions, limit = 1, 1, 2, 10  # limit: of the env steps of an episode
    state_names: ClassVar[tuple[str, ...]] = ("_cue", "_step")

    def __init__(self, num_envs: int | None = None, tasks=None):
        super().__init__(num_envs, tasks, Discrete(self.observations), Discrete(self.actions))
        self._cue, self._step = np.zeros((2, self.num_envs), np.int64)

    def all_tasks(self):
        return np.arange(2)[:, None]

    def optimal_return(self, tasks, episode_length):
        return np.full(len(tasks), self.best)

    def reward(self, cue, step, action) -> np.ndarray:
        """Return the reward of each action, float [M]."""
        raise NotImplementedError

    def observe(self, cue, step) -> np.ndarray:
        """Return each observation, int [M]; by default there is one only."""
        return np.zeros_like(cue)

    def _begin(self, envs):
        self._cue[envs], self._step[envs] = self._random(envs) < 0.5, 0

    def _advance(self, actions, envs):
        reward = self.reward(self._cue[envs], self._step[envs], actions)
        self._step[envs] += 1
        return reward.astype(np.float32), self._step[envs] >= self.length

    def _observation(self):
        return self.observe(self._cue, np.minimum(self._step, self.length - 1))


class ConstantValue(Probe):
    """One step with reward 1: the value is 1."""

    best = 1.0

    def reward(self, cue, step, action):
        return np.ones(len(action))

    @staticmethod
    def values(discount: float) -> np.ndarray:
        return np.array([1.0])


class ActionByObservation(ConstantValue):
    """One step with reward 1 for the action that the observation shows, else -1."""

    observations = 2

    def reward(self, cue, step, action):
        return np.where(action == cue, 1, -1)

    def observe(self, cue, step):
        return cue.copy()

    @staticmethod
    def values(discount):
        return np.ones(2)


class Counting(ConstantValue):
    """Four steps that the observation counts, with reward 1 for action 1 at odd counts, else 0."""

    length, observations, best = 4, 4, 4.0

    def reward(self, cue, step, action):
        return action == step % 2

    def observe(self, cue, step):
        return step.copy()

    @staticmethod
    def values(discount):
        return np.array([sum(discount**i for i in range(left)) for left in (4, 3, 2, 1)])


class TimeLimit(ConstantValue):
    """Reward 1 for ever, cut after two steps, where the value of what follows is to be expected."""

    length, best, limit = 10**9, 2.0, 2

    @staticmethod
    def values(discount):
        return np.array([1 / (1 - discount)])


class MemoryOfFourSteps(ConstantValue):
    """The first observation shows the action that pays in the fourth step: 1, the other -1.

    The three later observations are equal, so that a learner without memory reaches 0 on average.
    """

    length, observations = 4, 3

    def reward(self, cue, step, action):
        return np.where(step < 3, 0, np.where(action == cue, 1, -1))

    def observe(self, cue, step):
        return np.where(step == 0, cue, 2)

    @staticmethod
    def values(discount):
        return np.array([discount**3, discount**3, np.nan])


WORLDS = {
    world.__name__: world for world in (ConstantValue, ActionByObservation, Counting, TimeLimit)
}
