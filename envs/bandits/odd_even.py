"""Bernoulli bandits whose better arms have odd numbers in train tasks, even ones in held-out tasks.

Laskin et al. 2022, "In-context Reinforcement Learning with Algorithm Distillation"
(arXiv 2210.14215), section 4, "Adversarial Bandit": 10 arms, 100 pulls; the odd arms pay more in
95 % of the train tasks, the even ones in 95 % of the test tasks. A model that learned where the
better arms are, in place of how to search for them, fails. Sinii et al. 2023, "In-Context
Reinforcement Learning for Variable Action Spaces" (arXiv 2312.13327): 300 pulls, and each task has
4 to 20 arms (`min_arms=4, arms=20`).

The first paper says neither what the arms pay nor what the 95 % are a share of. As in the code of
the second, a better arm has a mean that is uniform on [0.5, 1), another arm one uniform on
[0, 0.5), and each task has its better arms on one side. Arms are numbered from 0. Each task is of
the usual kind with probability `parity_probability`, independently of other tasks.
"""

from typing import ClassVar

import numpy as np

from envs.bandits.bandit import MAX_ARMS, MAX_TASKS
from envs.bandits.bernoulli import BernoulliBandit
from envs.checks import check_integer, check_number, check_tasks
from envs.rng import uniform

ODD, EVEN = "odd", "even"
GROUPS = (ODD, EVEN)  # the usual better arms of train tasks and of held-out tasks


class OddEvenBandit(BernoulliBandit):
    """N bandits; a task is (group, index): group 0 is for training, group 1 is held out.

    arms: the largest number of arms of a task; min_arms: the smallest, each number from it to
    `arms` is equally likely, None for `arms` in every task. A task lacks the last actions.
    num_tasks, num_held_out: the number of tasks of the two groups; parity_probability: how likely
    the better arms of a task are the odd ones (group 0) or the even ones (group 1). Raises
    ValueError for a bad setting or task.
    """

    family: ClassVar[str] = "OddEvenBandit-v0"

    def __init__(
        self,
        num_envs: int | None = None,
        tasks=None,
        arms: int = 10,
        min_arms: int | None = None,
        num_tasks: int = 1000,
        num_held_out: int = 100,
        parity_probability: float = 0.95,
        **kwargs,
    ):
        check_integer("arms", arms, 2, MAX_ARMS)
        check_integer("min_arms", arms if min_arms is None else min_arms, 2, arms)
        self.min_arms = min_arms
        self.num_held_out = check_integer("num_held_out", num_held_out, 1, MAX_TASKS)
        self.parity_probability = check_number("parity_probability", parity_probability, 0, 1)
        super().__init__(num_envs, tasks, arms=arms, num_tasks=num_tasks, **kwargs)

    def all_tasks(self) -> np.ndarray:
        """Return all tasks, int64 [K, 2]: group 0, then group 1."""
        sizes = self.num_tasks, self.num_held_out
        return np.array([(group, index) for group in (0, 1) for index in range(sizes[group])])

    def held_out_tasks(self) -> np.ndarray:
        """Return the tasks of group 1, int64 [m, 2]."""
        return self.all_tasks()[self.num_tasks :]

    def names(self, tasks) -> list[str]:
        """Return the usual better arms of each task's group and its index: "odd 3"."""
        return [f"{GROUPS[group]} {index}" for group, index in self._check(tasks)]

    def action_mask(self, tasks) -> np.ndarray | None:
        """Return which arms each task has, bool [K, A]: the first ones; None if all have all."""
        if self.min_arms is None:
            return None
        u = uniform(self._task_keys(tasks, "number of arms"), 0)
        number = self.min_arms + (u * (self.arms - self.min_arms + 1)).astype(np.int64)
        return np.arange(self.arms) < number[:, None]

    def better_arms(self, tasks) -> np.ndarray:
        """Return 1 for each task whose odd arms are the better ones, otherwise 0, int64 [K]."""
        group = np.array(self._check(tasks))[:, 0]
        is_usual = uniform(self._task_keys(tasks, "parity"), 0) < self.parity_probability
        return np.where(is_usual, 1 - group, group)

    def means(self, tasks) -> np.ndarray:
        """Return the mean reward of each arm, float64 [K, A]; NaN for an arm that a task lacks.

        It is uniform on [0.5, 1) for the better arms, on [0, 0.5) for the others.
        """
        is_better = np.arange(self.arms) % 2 == self.better_arms(tasks)[:, None]
        means = super().means(tasks) / 2 + 0.5 * is_better
        mask = self.action_mask(tasks)
        return means if mask is None else np.where(mask, means, np.nan)

    def _check(self, tasks) -> list[list[int]]:
        checked = check_tasks(tasks, 2).tolist()
        sizes = self.num_tasks, self.num_held_out
        for group, index in checked:
            if group not in (0, 1) or not 0 <= index < sizes[group]:
                raise ValueError(
                    f"task ({group}, {index}) is not there: group 0 has {sizes[0]} tasks, "
                    f"group 1 has {sizes[1]}"
                )
        return checked
