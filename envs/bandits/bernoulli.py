"""Bernoulli bandits: an arm pays 1 with a probability that is uniform on [0, 1], otherwise 0.

Duan et al. 2016, "RL²: Fast Reinforcement Learning via Slow Reinforcement Learning"
(arXiv 1611.02779), section 3.1: 5, 10 or 50 arms, episodes of 10, 100 or 500 pulls.
"""

from typing import ClassVar

from envs.bandits.bandit import Bandit


class BernoulliBandit(Bandit):
    """N bandits whose rewards are 0 and 1; see `envs.bandits.bandit` for tasks and settings."""

    family: ClassVar[str] = "BernoulliBandit-v0"
    reward_distribution = "bernoulli"

    def _pay(self, means, envs):
        return self._random(envs) < means
