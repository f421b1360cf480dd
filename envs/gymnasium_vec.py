"""Vector environments of any Gymnasium id, with discrete actions or bins of continuous ones.

The environments run in Gymnasium's SyncVectorEnv, or each in a process of its own (AsyncVectorEnv).
A task is a dict of keyword arguments for `gymnasium.make`, and is named by its index: task `[i]` is
`task_kwargs[i]`. A time limit that the id was registered with stays in force.
"""

import operator
from collections.abc import Collection, Sequence
from contextlib import closing
from functools import cached_property

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from envs.action_bins import ActionBins
from envs.checks import check_actions, check_indices, check_seeds, env_tasks
from envs.oracle import TaskOracle
from envs.spaces import check_action_space, check_discrete_parts, check_observation_space

MAX_SIDE = 240  # pixels of a frame
NO_STEP = -1  # in place of an action: the environment is not stepped


def _to_int(seed) -> int | None:
    return None if seed is None else operator.index(seed)


class _SkipSteps(gymnasium.Wrapper):
    """Leave the environment as it is for the action NO_STEP; drop the infos, which nobody reads.

    Raises ObservationError for an observation that Gymnasium could not batch.
    """

    def reset(self, *, seed=None, options=None):
        self._observation, _ = self.env.reset(seed=seed, options=options)
        check_discrete_parts(self.observation_space, self._observation)
        return self._observation, {}

    def step(self, action):
        if action == NO_STEP:
            return self._observation, 0.0, False, False, {}
        self._observation, *outcome, _ = self.env.step(int(action))
        check_discrete_parts(self.observation_space, self._observation)
        return self._observation, *outcome, {}


class GymnasiumVectorEnv(TaskOracle, VectorEnv):
    """N environments of one Gymnasium id, with the interface of a World (float32 rewards too).

    Environment i has the task `tasks[i]`, int [N, 1], an index into `task_kwargs`, and gets the
    keyword arguments of the task and `kwargs`. `task_kwargs` defaults to one task, {}. Without
    `tasks` and `num_envs` there is one environment, of the first task, which is made when its
    spaces are read or at the first reset. Raises ValueError if the id or its arguments are
    wrong, or if its spaces are not supported (`envs.spaces`).
    """

    metadata = VectorEnv.metadata | {"autoreset_mode": AutoresetMode.DISABLED}

    def __init__(
        self,
        env_id: str | EnvSpec,
        task_kwargs: list[dict] | None = None,
        tasks=None,
        num_envs: int | None = None,
        asynchronous: bool = False,
        **kwargs,
    ):
        is_id = isinstance(env_id, str)
        self._spec = gymnasium.spec(env_id.rpartition(":")[2]) if is_id else env_id
        self.env_id, self._made = env_id if is_id else env_id.id, env_id
        self.task_kwargs = [{}] if task_kwargs is None else task_kwargs
        self._kwargs, self._vector_class = kwargs, AsyncVectorEnv if asynchronous else SyncVectorEnv
        if not self.task_kwargs or not all(isinstance(task, dict) for task in self.task_kwargs):
            raise ValueError("task_kwargs must be a list of dicts, one for each task")
        self.tasks = env_tasks(self.all_tasks(), tasks, num_envs)
        self.num_envs = len(self.tasks)
        self._index(self.tasks)
        if tasks is not None or num_envs is not None:
            _ = self._envs  # made here, so that the constructor raises their errors

    @staticmethod
    def require(env_id: str) -> None:
        """Raise ValueError if `env_id` needs a package that is missing; by default none."""

    @staticmethod
    def single(env_id: str | EnvSpec, *, action_bins=None, **kwargs) -> gymnasium.Env:
        """Make one environment, with `ActionBins` if `action_bins` are given."""
        env = gymnasium.make(env_id, **kwargs)
        return env if action_bins is None else ActionBins(env, action_bins)

    @cached_property
    def _envs(self) -> SyncVectorEnv | AsyncVectorEnv:
        """The vector environment of Gymnasium; ValueError if it cannot be made."""

        def maker(task: int):
            return lambda: _SkipSteps(self._make(task))

        makers = [maker(int(task)) for task in self.tasks[:, 0]]
        try:
            envs = self._vector_class(makers, autoreset_mode=AutoresetMode.DISABLED)
        except Exception as error:  # another package may raise anything about its arguments
            raise ValueError(f"{self.env_id} cannot be made for these tasks: {error}") from error
        try:
            check_observation_space(envs.single_observation_space)
            check_action_space(envs.single_action_space)
        except ValueError as error:
            envs.close()
            raise ValueError(f"{self.env_id}: {error}") from error
        return envs

    @cached_property
    def single_observation_space(self) -> gymnasium.Space:
        """The observation space of one environment."""
        return self._envs.single_observation_space

    @cached_property
    def single_action_space(self) -> gymnasium.Space:
        """The action space of one environment."""
        return self._envs.single_action_space

    @cached_property
    def observation_space(self) -> gymnasium.Space:
        """The observation space of all N environments."""
        return self._envs.observation_space

    @cached_property
    def action_space(self) -> gymnasium.Space:
        """The action space of all N environments."""
        return self._envs.action_space

    @cached_property
    def max_episode_steps(self) -> int | None:
        """The time limit of the tasks, the longest if they differ; None if a task has none."""
        own = [(self._kwargs | task).get("max_episode_steps") for task in self.task_kwargs]
        limits = [self._spec.max_episode_steps if limit is None else limit for limit in own]
        known = [limit for limit in limits if limit not in (None, -1)]  # -1 takes one away
        return max(known) if len(known) == len(limits) else None

    def all_tasks(self) -> np.ndarray:
        """Return the indices into `task_kwargs`, [[0], [1], ...], int64 [K, 1]."""
        return np.arange(len(self.task_kwargs))[:, None]

    def names(self, tasks) -> list[str]:
        """Return the settings of each task, "(seed: 4)", or its index where it has none."""
        own = [(int(i), self.task_kwargs[int(i)]) for i in self._index(tasks)]
        return [
            f"({', '.join(f'{name}: {value}' for name, value in task.items()) or index})"
            for index, task in own
        ]

    def success(self, returns: np.ndarray) -> np.ndarray | None:
        """Return whether returns are at least the id's reward threshold; None if it has none."""
        threshold = self._spec.reward_threshold
        return None if threshold is None else returns >= threshold

    def reset(self, *, seed=None, options: dict | None = None):
        """Begin an episode in each environment or in those of `options["reset_mask"]`, bool [N]."""
        # Gymnasium's vector environments want int seeds, and pop the mask from the caller's dict.
        check_seeds(seed, self.num_envs)
        is_list = seed is not None and np.ndim(seed)
        seed = [_to_int(one) for one in seed] if is_list else _to_int(seed)
        observations, _ = self._envs.reset(seed=seed, options=options and dict(options))
        return observations, {}

    def step(self, actions, active: np.ndarray | None = None):
        """Step the environments; those not `active`, bool [N], stay as they are with reward 0."""
        actions = check_actions(actions, self.num_envs, self.num_actions)
        self.check_masks(actions, slice(None) if active is None else np.flatnonzero(active))
        if active is not None:
            actions[~active] = NO_STEP
        observations, rewards, terminated, truncated, _ = self._envs.step(actions)
        return observations, rewards.astype(np.float32), terminated, truncated, {}

    @cached_property
    def can_render(self) -> bool:
        """Whether an environment can be made and drawn, so that `replay` has frames."""
        try:
            with closing(self.single(self._made, **self._settings(0))) as env:
                if "rgb_array" not in env.metadata.get("render_modes", ()):
                    return False
            with closing(self._drawn(0)) as env:
                env.reset()
                return isinstance(env.render(), np.ndarray)
        except Exception:  # of a package for drawing that is missing, or of the environment itself
            return False

    def replay(
        self, task, seed: int, episodes: Sequence[tuple[np.ndarray, float]], chosen: Collection[int]
    ) -> dict[int, np.ndarray]:
        """Play the `episodes` since the reset with `seed` again, and draw the `chosen` ones.

        A frame has at most 240 pixels a side. Raises ValueError if a return is another one now, so
        that more than the seed decides what happens, and if the environment raises an error.
        """
        try:
            with closing(self._drawn(int(task[0]))) as env:
                return _played_again(env, seed, episodes, chosen)
        except ValueError:
            raise
        except Exception as error:
            raise ValueError(f"{self.env_id} cannot be drawn: {error}") from error

    def close_extras(self, **kwargs) -> None:
        """Close the environments and their processes."""
        if "_envs" in self.__dict__:
            self._envs.close(**kwargs)

    def _settings(self, task: int) -> dict:
        """Return all keyword arguments of a task, given by its index."""
        return {**self._kwargs, **self.task_kwargs[task]}

    def _drawn(self, task: int) -> gymnasium.Env:
        """Make one environment of a task, given by its index, that renders arrays."""
        return self.single(self._made, render_mode="rgb_array", **self._settings(task))

    def _make(self, task: int) -> gymnasium.Env:
        """Make one environment of a task, given by its index."""
        return self.single(self._made, **self._settings(task))

    def _index(self, tasks) -> np.ndarray:
        """Return tasks as indices, int64 [K]; ValueError for one outside `task_kwargs`."""
        return check_indices(tasks, len(self.task_kwargs))


def _played_again(
    env: gymnasium.Env,
    seed: int,
    episodes: Sequence[tuple[np.ndarray, float]],
    chosen: Collection[int],
) -> dict[int, np.ndarray]:
    """Return the frames of the `chosen` episodes. Raises ValueError for another return."""
    frames: dict[int, list[np.ndarray]] = {episode: [] for episode in chosen}
    for episode, (actions, expected) in enumerate(episodes):
        own, total = frames.get(episode), np.float64(0)
        env.reset(seed=seed if episode == 0 else None)
        if own is not None:
            own.append(_small(np.asarray(env.render())))
        for action in actions:
            total += np.float32(env.step(int(action))[1])
            if own is not None:
                own.append(_small(np.asarray(env.render())))
        if not np.isclose(total, expected, rtol=1e-4, atol=1e-4):
            raise ValueError(
                f"episode {episode + 1} returned {expected:g}, and {total:g} when it was played "
                "again from its seed"
            )
    return {episode: np.stack(own) for episode, own in frames.items()}


def _small(frame: np.ndarray) -> np.ndarray:
    """Return a frame, uint8 [H, W, 3], whose pixels are means of squares of pixels."""
    factor = -(-max(frame.shape[:2]) // MAX_SIDE)
    height, width = (side // factor for side in frame.shape[:2])
    squares = frame[: height * factor, : width * factor]
    return squares.reshape(height, factor, width, factor, 3).mean((1, 3)).astype(np.uint8)
