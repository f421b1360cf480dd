"""Random MDPs: dense transitions and normal rewards, both drawn for each task.

Duan et al. 2016, "RL²: Fast Reinforcement Learning via Slow Reinforcement Learning" (arXiv
1611.02779), section 3.2, after Osband et al. 2013: 10 states, 5 actions, episodes of 10 steps.
"""

import numpy as np

from envs.mdps.draws import dirichlets, normals
from envs.mdps.tabular import Model, TabularMDP

MEAN_REWARD, REWARD_SD = 1.0, 1.0  # of the mean rewards over tasks


class RandomMDP(TabularMDP):
    """N random MDPs; a task is [index].

    The next states of each state and action have probabilities from a flat Dirichlet distribution.
    Mean rewards are normal with mean 1 and variance 1; a reward adds standard normal noise. Every
    episode begins in state 0, and only the time limit ends it.
    """

    family = "RandomMDP-v0"

    def __init__(
        self, num_envs: int | None = None, tasks=None, reward_noise: float = 1.0, **kwargs
    ):
        super().__init__(num_envs, tasks, reward_noise=reward_noise, **kwargs)

    def prior(self) -> dict[str, float]:
        """Return the prior from which tasks are drawn, which is known entirely."""
        rewards = {"reward_mean": MEAN_REWARD, "reward_sd": REWARD_SD}
        return {**super().prior(), **rewards, "concentration": 1.0}

    def models(self, tasks: np.ndarray) -> Model:
        """Draw the MDPs of `tasks`, int64 [K], by their keys."""
        pairs = self.num_states, self.num_actions
        return Model(
            dirichlets(self.keys(tasks, "transitions"), (*pairs, self.num_states)),
            MEAN_REWARD + REWARD_SD * normals(self.keys(tasks, "rewards"), pairs),
            np.zeros((len(tasks), self.num_states), bool),
            np.zeros(len(tasks), np.int64),
        )
