"""Bernoulli bandits: an arm pays 1 with a probability that is uniform on [0, 1], otherwise 0.

Duan et al. 2016, "RL²: Fast Reinforcement Learning via Slow Reinforcement Learning"
(arXiv 1611.02779), section 3.1: 5, 10 or 50 arms, episodes of 10, 100 or 500 pulls. With a `drift`
the probabilities change from pull to pull, each by itself, as those of the restless bandits of Daw
et al. 2006 (Nature 441, "Cortical substrates for exploratory decisions in humans").
"""

from typing import ClassVar

import numpy as np

from envs.bandits.bandit import MAX_ARMS, Bandit
from envs.checks import check_integer, check_number
from envs.rng import normal, uniform

MAX_PULLS = 100_000


class BernoulliBandit(Bandit):
    """N bandits whose rewards are 0 and 1; see `envs.bandits.bandit` for tasks and settings.

    drift: the standard deviation of the normal step that each mean takes after a pull, reflected at
    0 and 1; 0 for none. pulls: the number of pulls of a life, after which the means stay, with a
    drift. A task's walk is drawn by its key, the same for all its environments, and begins anew
    with a seed. Facts about a drifting task are means over these pulls: the optimal return is that
    of an oracle that knows the best arm of each, so that a `life` must have as many. Pictures of
    episodes show the first means. Raises ValueError as `Bandit` does, and for a bad drift.
    """

    family: ClassVar[str] = "BernoulliBandit-v0"
    reward_distribution = "bernoulli"

    def __init__(self, *arguments, drift: float = 0.0, pulls: int = 400, **kwargs):
        self.drift = check_number("drift", drift, 0, 1)
        self.pulls = check_integer("pulls", pulls, 1, MAX_PULLS)
        super().__init__(*arguments, **kwargs)
        if self.drift:
            self.life = self.pulls
            self.reward_distribution = None  # posteriors of means that stay do not fit
            own, walk = np.unique(self.tasks, axis=0, return_inverse=True)
            self._walks, self._walk = self.walks(own), walk.ravel()

    def walks(self, tasks) -> np.ndarray:
        """Return the mean reward of each arm at each pull, float64 [K, P, A]."""
        keys = self._task_keys(tasks, "drift")[:, None, None]
        first = np.arange(self.pulls)[:, None] * MAX_ARMS + np.arange(self.arms)
        second = first + MAX_PULLS * MAX_ARMS
        steps = self.drift * normal(uniform(keys, first), uniform(keys, second))
        steps[:, 0] = self.means(tasks)
        return 1 - abs(1 - steps.cumsum(1) % 2)

    def optimal_return(self, tasks, episode_length):
        if not self.drift or episode_length is None:
            return super().optimal_return(tasks, episode_length)
        return np.nanmax(self.walks(tasks), 2).mean(1) * episode_length

    def random_return(self, tasks, episode_length):
        if not self.drift or episode_length is None:
            return super().random_return(tasks, episode_length)
        return np.nanmean(self.walks(tasks), (1, 2)) * episode_length

    def optimal_policy(self, tasks):
        return None if self.drift else super().optimal_policy(tasks)

    def _begin(self, envs):
        super()._begin(envs)
        self._walk_on(envs)

    def _advance(self, actions, envs):
        self._walk_on(envs)
        return super()._advance(actions, envs)

    def _walk_on(self, envs):
        """Set the means of `envs` to those of their next pull."""
        if self.drift:  # a pull draws one number
            pull = np.minimum(self._draws[envs].astype(int), self.pulls - 1)
            self._means[envs] = self._walks[self._walk[envs], pull]

    def _pay(self, means, envs):
        return self._random(envs) < means
