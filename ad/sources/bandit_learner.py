"""Learners of bandits: they count the pulls of each arm, sum its rewards, and rank the arms."""

from abc import abstractmethod
from typing import ClassVar

import numpy as np
from gymnasium.spaces import Discrete

from ad.config.schema import Experiment
from ad.data.schema import TransitionChunk
from ad.sources.actors import Actors, actor_keys
from ad.sources.base import RolloutSource, unfit
from envs.oracle import TaskOracle
from envs.rng import draw_allowed


class BanditLearner(RolloutSource):
    """K agents with N actors each; each actor is a life that learns one task from nothing.

    A subclass has `Settings` and the hook `_index`. `counts` and `sums` are the pulls and the total
    reward of each arm, float64 [K * N, A].
    """

    NAME: ClassVar[str]  # in the table of sources
    state_names = ("counts", "sums")

    @classmethod
    def check(cls, config: Experiment, world: TaskOracle) -> None:
        """Raise SettingError unless `world` is a bandit."""
        space = world.single_observation_space
        if not (isinstance(space, Discrete) and space.n == 1):
            raise unfit(config, "it needs a world with a single state, a Discrete(1) observation")

    def __init__(self, settings, env, tasks, num_envs: int, keys):
        self.settings, self.world = settings, env.unwrapped
        self.actors = Actors(env, len(tasks), num_envs, keys)
        self.keys = actor_keys(keys, num_envs, self.NAME)
        self.mask = np.repeat(self.actors.action_mask, num_envs, axis=0)  # [K * N, A]
        self.counts = np.zeros(self.mask.shape)
        self.sums = np.zeros(self.mask.shape)

    def act(self, observations: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Pull the arms [K, N] with the highest index, of equal ones any by `u` [K, N]."""
        index = np.where(self.mask, self._index(), -np.inf)
        best = (index == index.max(1, keepdims=True)) & self.mask
        return draw_allowed(best, u.ravel()).reshape(u.shape)

    @abstractmethod
    def _index(self) -> np.ndarray:
        """Return the index of each arm for the next pull, float64 [K * N, A]."""
        raise NotImplementedError

    def _learn(self, rollout: TransitionChunk) -> None:
        """Count the pull of a step of each actor and add its reward."""
        actor, arm = np.arange(len(self.counts)), rollout.arrays["action"].ravel()
        self.counts[actor, arm] += 1
        self.sums[actor, arm] += rollout.arrays["reward"].ravel()

    def _statistics(self) -> dict[str, np.ndarray]:
        """Return the share of the most pulled arm, as the mean over actors, float32 [K]."""
        share = self.counts.max(1) / self.counts.sum(1)
        return {"most_pulled": share.reshape(self.actors.shape).mean(1).astype(np.float32)}
