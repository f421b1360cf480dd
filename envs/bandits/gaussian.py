"""Gaussian bandits: an arm pays normally distributed rewards with a mean uniform on [0, 1].

Lee et al. 2023, "Supervised Pretraining Can Learn In-Context Reinforcement Learning"
(arXiv 2306.14892), section 4: 5 arms, a standard deviation of 0.3, 500 pulls.
"""

from typing import ClassVar

import numpy as np

from envs.bandits.bandit import Bandit

MAX_SD = 1e6


class GaussianBandit(Bandit):
    """N bandits whose rewards are real, with the standard deviation `sd` in every arm.

    A model of such rewards needs `model.reward projection`, since no two are equal. Raises
    ValueError as `envs.bandits.bandit.Bandit` does, and for a bad `sd`.
    """

    family: ClassVar[str] = "GaussianBandit-v0"
    reward_distribution = "normal"

    def __init__(self, num_envs: int | None = None, tasks=None, sd: float = 0.3, **kwargs):
        if type(sd) not in (int, float) or not 0 < sd <= MAX_SD:
            raise ValueError(f"sd must be a number above 0 and at most {MAX_SD:g}, got {sd!r}")
        self.reward_noise = float(sd)
        self.reward_bounds = -3 * self.reward_noise, 1 + 3 * self.reward_noise
        super().__init__(num_envs, tasks, **kwargs)

    def _pay(self, means, envs):
        # `envs.rng.normal` multiplies in another order, which could change a bit of a reward.
        radius = np.sqrt(-2 * np.log1p(-self._random(envs)))  # Box and Muller 1958
        return means + self.reward_noise * radius * np.cos(2 * np.pi * self._random(envs))
