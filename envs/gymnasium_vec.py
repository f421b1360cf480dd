"""Worlds that someone else wrote: lanes of any Gymnasium id with discrete spaces.

The lanes run in Gymnasium's SyncVectorEnv, or each in a process of its own (AsyncVectorEnv). A task
is a dict of keyword arguments for `gymnasium.make`; as in the own worlds it is named by integers:
`[i]` stands for `task_kwargs[i]`. A time limit of the id's own stays in force.
"""

import operator
from functools import cached_property
from typing import ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from envs.checks import check_actions, check_tasks, lane_tasks

MAX_OBSERVATIONS, MAX_ACTIONS = 2**16, 2**8  # what uint16 and uint8 hold, as which they are stored
REST = -1  # what GymnasiumVectorEnv sends to a lane that stands still; no action of an environment


def _plain(seed) -> int | None:
    return None if seed is None else operator.index(seed)


class _Lane(gymnasium.Wrapper):
    """A lane that can stand still; it drops the infos, which nothing here reads."""

    def reset(self, *, seed=None, options=None):
        self._observation, _ = self.env.reset(seed=seed, options=options)
        return self._observation, {}

    def step(self, action):
        if action == REST:
            return self._observation, 0.0, False, False, {}
        self._observation, *outcome, _ = self.env.step(int(action))
        return self._observation, *outcome, {}


class GymnasiumVectorEnv(VectorEnv):
    """A batch of foreign environments, with the interface of a GridWorld (float32 rewards too).

    Lane i has the task `tasks[i]`, int [N, 1], an index into `task_kwargs` (without: one task that
    adds nothing to `kwargs`, which all tasks share). Without `tasks` and `num_envs` it is one lane
    of the first task, made when its spaces are asked for or at the first reset. Raises ValueError
    where the id, its arguments or its spaces will not do.
    """

    metadata: ClassVar[dict] = {"autoreset_mode": AutoresetMode.DISABLED}

    def __init__(
        self,
        env_id: str,
        task_kwargs: list[dict] | None = None,
        tasks=None,
        num_envs: int | None = None,
        asynchronous: bool = False,
        **kwargs,
    ):
        self.env_id, self.task_kwargs = env_id, [{}] if task_kwargs is None else task_kwargs
        self._kwargs, self._vector_class = kwargs, AsyncVectorEnv if asynchronous else SyncVectorEnv
        if not self.task_kwargs or not all(isinstance(task, dict) for task in self.task_kwargs):
            raise ValueError("task_kwargs must be a list of dicts, one for each task")
        self.tasks = lane_tasks(self.all_tasks(), tasks, num_envs)
        self.num_envs = len(self.tasks)
        self._index(self.tasks)
        if tasks is not None or num_envs is not None:
            _ = self._lanes  # made here, so that the constructor raises what is wrong with them

    @cached_property
    def _lanes(self) -> SyncVectorEnv | AsyncVectorEnv:
        """One environment for each lane's task; ValueError where Gymnasium cannot make them."""

        def maker(task: int):
            merged = {**self._kwargs, **self.task_kwargs[task]}
            return lambda: _Lane(gymnasium.make(self.env_id, **merged))

        makers = [maker(int(task)) for task in self.tasks[:, 0]]
        try:
            lanes = self._vector_class(makers, autoreset_mode=AutoresetMode.DISABLED)
        except Exception as error:  # whatever foreign code raises about its arguments
            raise ValueError(f"{self.env_id} cannot be made for these tasks: {error}") from error
        try:
            self._check_space("observation", lanes.single_observation_space, MAX_OBSERVATIONS)
            self._check_space("action", lanes.single_action_space, MAX_ACTIONS)
        except ValueError:
            lanes.close()
            raise
        return lanes

    def _check_space(self, kind: str, space: gymnasium.Space, largest: int) -> None:
        """Raise ValueError unless `space` is Discrete from 0 with at most `largest` values."""
        if not isinstance(space, Discrete) or space.start != 0 or space.n > largest:
            wanted = f"Discrete from 0 with at most {largest:,} values"
            raise ValueError(
                f"{self.env_id}: the single_{kind}_space must be {wanted}, it is {space}"
            )

    @property
    def single_observation_space(self) -> Discrete:
        """The observation space of one environment."""
        return self._lanes.single_observation_space

    @property
    def single_action_space(self) -> Discrete:
        """The action space of one environment."""
        return self._lanes.single_action_space

    @property
    def observation_space(self) -> gymnasium.Space:
        """The observation space of the batch."""
        return self._lanes.observation_space

    @property
    def action_space(self) -> gymnasium.Space:
        """The action space of the batch."""
        return self._lanes.action_space

    @property
    def observation_factors(self) -> tuple[int, ...]:
        """A foreign observation is one number: (n,)."""
        return (int(self.single_observation_space.n),)

    def all_tasks(self) -> np.ndarray:
        """[[0], [1], ...], int64 [K, 1]: the indices into `task_kwargs`."""
        return np.arange(len(self.task_kwargs))[:, None]

    def relative_tasks(self, tasks) -> np.ndarray:
        """The tasks themselves: a task has the same index whatever the keyword arguments."""
        return np.asarray(tasks)

    def optimal_return(self, tasks, episode_length: int | None) -> np.ndarray:
        """Unknown: NaN for each task, float [K]."""
        return np.full(len(self._index(tasks)), np.nan)

    def shortest_episode(self, tasks) -> np.ndarray:
        """Unknown: NaN for each task, float [K]."""
        return np.full(len(self._index(tasks)), np.nan)

    def reset(self, *, seed=None, options: dict | None = None):
        """Begin an episode in every lane, or in those of `options["reset_mask"]`, bool [N]."""
        # Gymnasium's vectors want seeds without NumPy, and take the mask out of the caller's dict.
        seed = [_plain(one) for one in seed] if np.ndim(seed) else _plain(seed)
        observations, _ = self._lanes.reset(seed=seed, options=options and dict(options))
        return observations, {}

    def step(self, actions, active: np.ndarray | None = None):
        """Step every lane; lanes outside `active`, bool [N], stand still and get no reward."""
        actions = check_actions(actions, self.num_envs, int(self.single_action_space.n))
        if active is not None:
            actions[~active] = REST
        observations, rewards, terminated, truncated, _ = self._lanes.step(actions)
        observations, rewards = observations.astype(np.int64), rewards.astype(np.float32)
        return observations, rewards, terminated, truncated, {}

    def close_extras(self, **kwargs) -> None:
        """Close the lanes and their processes."""
        if "_lanes" in self.__dict__:
            self._lanes.close(**kwargs)

    def _index(self, tasks) -> np.ndarray:
        """The tasks as indices, int64 [K]; ValueError for one that `task_kwargs` does not have."""
        index = check_tasks(tasks, 1)[:, 0]
        if ((index < 0) | (index >= len(self.task_kwargs))).any():
            raise ValueError(f"tasks go from [0] to [{len(self.task_kwargs) - 1}], got {tasks!r}")
        return index
