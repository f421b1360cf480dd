"""The base class of bandits: arms with hidden means, one state, episodes of any number of pulls.

An action pulls an arm and pays a random reward; nothing else happens, and nothing ever terminates:
an episode has `episode_length` pulls. With an `episode_length` of 1 an in-context curve has a point
for each pull; with 100 its first point is the mean over the first 100 pulls of a life.

The means of a task are drawn once, from the name of the family, `family_seed` and the task's own
numbers. They depend neither on the number of tasks nor on the number of arms.
"""

from abc import abstractmethod
from typing import ClassVar

import numpy as np
from gymnasium.spaces import Discrete

from envs.bandits.drawing import draw
from envs.checks import MAX_SEED, check_indices, check_integer
from envs.rng import derive_key, uniform
from envs.world import World

MAX_ARMS, MAX_TASKS = 256, 100_000


class Bandit(World):
    """N bandits; a task is an index below `num_tasks`, environment i has `tasks[i]`.

    arms: the number of actions; num_tasks: the number of tasks; family_seed: what the means are
    drawn by. The observation is always 0. Raises ValueError for a bad setting or task.

    A subclass has the hook `_pay`, and says in `reward_distribution` what it pays.
    """

    metadata = World.metadata | {"render_modes": ["rgb_array"], "render_fps": 8}
    state_names: ClassVar[tuple[str, ...]] = ("_arm", "_reward")
    task_noun = "bandit"
    family: ClassVar[str]  # a part of what the means are drawn by
    reward_bounds: tuple[float, float] = (0.0, 1.0)  # of pictures

    def __init__(
        self,
        num_envs: int | None = None,
        tasks=None,
        arms: int = 5,
        num_tasks: int = 1000,
        family_seed: int = 0,
        render_mode: str | None = None,
    ):
        self.arms = check_integer("arms", arms, 2, MAX_ARMS)
        self.num_tasks = check_integer("num_tasks", num_tasks, 2, MAX_TASKS)
        self.family_seed = check_integer("family_seed", family_seed, 0, MAX_SEED)
        super().__init__(num_envs, tasks, Discrete(1), Discrete(arms), render_mode)
        self._means = self.means(self.tasks)
        self._arm = np.full(self.num_envs, -1)  # that was pulled last, -1: none in this episode
        self._reward = np.zeros(self.num_envs, np.float32)  # of the last pull

    def all_tasks(self) -> np.ndarray:
        """Return the indices of all tasks, int64 [K, 1]."""
        return np.arange(self.num_tasks)[:, None]

    def relative_tasks(self, tasks) -> np.ndarray:
        """Return `tasks` with the family's seed before their numbers, [K, D + 1]."""
        return np.insert(np.asarray(tasks), 0, self.family_seed, axis=1)

    def means(self, tasks) -> np.ndarray:
        """Return the mean reward of each arm, float64 [K, A]: here one uniform on [0, 1).

        A subclass may draw other means, with NaN for each arm that a task lacks.
        """
        return uniform(self._task_keys(tasks, "means")[:, None], np.arange(self.arms))

    def optimal_return(self, tasks, episode_length: int | None) -> np.ndarray | None:
        """Return the expected return of pulling the best arm in each task, float64 [K].

        None without a limit of pulls.
        """
        if episode_length is None:
            return None
        return np.nanmax(self.means(tasks), axis=1) * episode_length

    def random_return(self, tasks, episode_length: int | None) -> np.ndarray | None:
        """Return the expected return of uniformly random pulls in each task, float64 [K].

        None without a limit of pulls.
        """
        if episode_length is None:
            return None
        return np.nanmean(self.means(tasks), axis=1) * episode_length

    def optimal_policy(self, tasks) -> np.ndarray:
        """Return the probabilities of an optimal policy, float64 [K, 1, A]: it pulls the best arm.

        The first of equally good arms is pulled.
        """
        best = np.nanargmax(self.means(tasks), axis=1)
        return np.eye(self.arms)[best][:, None]

    def frames(self, task, transitions: dict[str, np.ndarray]) -> np.ndarray:
        """Draw one episode, uint8 [T + 1, H, W, 3]: see `envs.bandits.drawing`."""
        arms = np.insert(transitions["action"].astype(np.int64), 0, -1)
        rewards = np.insert(transitions["reward"].astype(float), 0, 0)
        return draw(self.means([task])[0], arms, rewards, self.reward_bounds)

    @abstractmethod
    def _pay(self, means: np.ndarray, envs) -> np.ndarray:
        """Draw the reward of an arm with the mean `means`, float64 [M], in each of `envs`: [M]."""
        raise NotImplementedError

    def _begin(self, envs):
        self._arm[envs], self._reward[envs] = -1, 0

    def _advance(self, actions, envs):
        means = self._means[envs][np.arange(len(actions)), actions]
        reward = self._pay(means, envs).astype(np.float32)
        self._arm[envs], self._reward[envs] = actions, reward
        return reward, np.zeros(len(actions), bool)

    def _observation(self):
        return np.zeros(self.num_envs, np.int64)

    def _draw(self, env):
        arm, reward = self._arm[env : env + 1], self._reward[env : env + 1]
        return draw(self._means[env], arm, reward, self.reward_bounds)[0]

    def _task_keys(self, tasks, purpose: str) -> np.ndarray:
        """Derive a key of each task for `purpose`, uint64 [K]."""
        words = self.family, self.family_seed, purpose
        return np.array([derive_key(*words, *task) for task in self._check(tasks)], np.uint64)

    def _check(self, tasks) -> list[list[int]]:
        """Return `tasks` as lists of numbers; raises ValueError for what is no task."""
        return check_indices(tasks, self.num_tasks)[:, None].tolist()
