"""Worlds for tests: one whose tasks are not cells, one that tells nothing, and one that draws."""

from typing import ClassVar

import numpy as np
from gymnasium.spaces import Dict, Discrete

from envs.checks import check_tasks
from envs.rng import derive_key, uniform
from envs.world import World


class Bandit(World):
    """Bandits with 3 to 6 arms; a task is (number of arms, index). An episode has `pulls` steps.

    Arm a pays with probability `means[a]`, and then a real number from 0.5 to 1.5.
    """

    state_names: ClassVar[tuple[str, ...]] = ("_pulled",)

    def __init__(self, num_envs: int | None = None, tasks=None, pulls: int = 1):
        super().__init__(num_envs, tasks, Discrete(1), Discrete(6))
        self.pulls, self._means = pulls, self.means(self.tasks)
        self._pulled = np.zeros(self.num_envs, np.int64)

    def all_tasks(self):
        return np.array([[arms, index] for arms in range(3, 7) for index in range(4)])

    def means(self, tasks) -> np.ndarray:
        """Return the probability of each arm of each task to pay, float [K, 6]."""
        keys = [[derive_key(*task, arm) for arm in range(6)] for task in np.asarray(tasks).tolist()]
        return uniform(np.array(keys, np.uint64), 0)

    def action_mask(self, tasks):
        return np.arange(6) < check_tasks(tasks, 2)[:, :1]

    def optimal_return(self, tasks, episode_length):
        best = np.where(self.action_mask(tasks), self.means(tasks), 0).max(1)
        return best * min(self.pulls, episode_length)

    def _begin(self, envs):
        self._pulled[envs] = 0

    def _advance(self, actions, envs):
        means = self._means[envs][np.arange(len(actions)), actions]
        pays = self._random(envs) < means
        reward = np.where(pays, 0.5 + self._random(envs), 0).astype(np.float32)
        self._pulled[envs] += 1
        return reward, self._pulled[envs] >= self.pulls

    def _observation(self):
        return np.zeros(self.num_envs, np.int64)


class Silent(World):
    """A ring of four places; the task says which of the two moves has reward 1. It tells nothing.

    With `parts` an observation is a dict: the place, and whether the last move had a reward.
    """

    state_names: ClassVar[tuple[str, ...]] = ("_place", "_rewarded")

    def __init__(self, num_envs: int | None = None, tasks=None, parts=False, render_mode=None):
        space = Dict({"place": Discrete(4), "rewarded": Discrete(2)}) if parts else Discrete(4)
        super().__init__(num_envs, tasks, space, Discrete(2), render_mode)
        self.parts = parts
        self._place, self._rewarded = np.zeros((2, self.num_envs), np.int64)

    def all_tasks(self):
        return np.arange(6)[:, None]

    def _begin(self, envs):
        self._place[envs] = self._random(envs) * 4
        self._rewarded[envs] = 0

    def _advance(self, actions, envs):
        self._place[envs] = (self._place[envs] + 2 * actions - 1) % 4
        self._rewarded[envs] = actions == self.tasks[envs, 0] % 2
        return self._rewarded[envs].astype(np.float32), np.zeros(len(actions), bool)

    def _observation(self):
        parts = {"place": self._place.copy(), "rewarded": self._rewarded.copy()}
        return parts if self.parts else parts["place"]


class Named(Silent):
    """The ring of `Silent`, in which an observation says which task it is, and nothing else."""

    def all_tasks(self):
        return np.arange(4)[:, None]

    def _observation(self):
        return self.tasks[:, 0].copy()


class Timed(Silent):
    """The ring of `Silent`, in which every step has reward 1."""

    def _advance(self, actions, envs):
        rewards, terminated = super()._advance(actions, envs)
        return np.ones_like(rewards), terminated


class Paying(Silent):
    """The ring of `Silent`, in which the same move has reward 1 in every task."""

    def _advance(self, actions, envs):
        super()._advance(actions, envs)
        self._rewarded[envs] = actions == 1
        return self._rewarded[envs].astype(np.float32), np.zeros(len(actions), bool)
