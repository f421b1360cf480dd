"""The base class of worlds that step N environments at once: spaces, seeds, resets, random streams.

`World` is a Gymnasium vector environment without a loop over environments and without subprocesses.
It never resets by itself (autoreset mode DISABLED); `envs.wrappers.VectorEpisodeLength` adds the
time limit and the three autoreset modes. `WorldEnv` wraps a World of one environment as a
`gymnasium.Env`, so the rules exist once.

A new world is a subclass with the hooks `_advance` and `_observation`, and where it needs them
`_begin` and `_draw`. It keeps its state in arrays [N, ...], whose names are in `state_names`. It
has `all_tasks`, and of the other facts in `envs.oracle.TaskOracle` those that it can tell; what it
cannot tell is left out of results and reports.

A hook gets the environments to work on as `envs`: an index into arrays [N, ...], either int64 [M]
or the slice of all N, for which M = N.
"""

from abc import abstractmethod
from typing import ClassVar

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, iterate

from envs.checks import check_actions, check_seeds, env_tasks
from envs.oracle import TaskOracle
from envs.rng import uniform
from envs.spaces import check_action_space, check_observation_space

Envs = np.ndarray | slice  # an index of M environments: int64 [M], or the slice of all


class World(TaskOracle, VectorEnv):
    """N environments of one family; environment i has the task `tasks[i]` and a random stream.

    Rewards are float32 [N], terminated and truncated bool [N]; truncated is always False here. A
    random number depends only on the environment's seed and on how many numbers it has drawn since:
    an environment's transitions are the same in any batch. Without `tasks`, environment i has task
    i modulo the number of tasks. Raises ValueError for a bad setting.

    A subclass is built as `Subclass(num_envs=None, tasks=None, **settings)`. It sets what
    `all_tasks` needs before it calls `super().__init__`, which asks for the tasks.
    """

    metadata = VectorEnv.metadata | {"render_modes": [], "autoreset_mode": AutoresetMode.DISABLED}
    task_argument: ClassVar[str] = "task"  # of `single`
    state_names: ClassVar[tuple[str, ...]] = ()  # attributes that are arrays [N, ...]

    def __init__(
        self,
        num_envs: int | None,
        tasks,
        observation_space: gymnasium.Space,
        action_space: Discrete,
        render_mode: str | None = None,
    ):
        modes = self.metadata["render_modes"]
        if render_mode not in (None, *modes):
            known = " and ".join(modes) or "none"
            raise ValueError(f"render_mode {render_mode!r} is unknown, there are {known}")
        check_observation_space(observation_space)
        check_action_space(action_space)
        self.tasks, self.render_mode = env_tasks(self.all_tasks(), tasks, num_envs), render_mode
        self.num_envs = len(self.tasks)
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = batch_space(observation_space, self.num_envs)
        self.action_space = batch_space(action_space, self.num_envs)
        self._keys: np.ndarray | None = None  # uint64 [N] of random streams, None before a reset
        self._draws = np.zeros(self.num_envs, np.uint64)  # numbers drawn since seeding

    @classmethod
    def single(cls, **kwargs) -> "WorldEnv":
        """Make one environment as a `gymnasium.Env`; `task_argument` defaults to the first task."""
        task = kwargs.pop(cls.task_argument, None)
        return WorldEnv(cls(tasks=None if task is None else [task], **kwargs))

    def reset(self, *, seed=None, options=None):
        """Begin an episode in each environment, or in those of `options["reset_mask"]`, bool [N].

        An int `seed` seeds environment i with seed + i; a list of N seeds each of them. None, also
        in the list, continues the random stream, which starts at random the first time.
        """
        mask = self.reset_mask(options)
        self._seed_envs(seed, mask)
        self._begin(np.flatnonzero(mask))
        return self._observation(), {}

    def step(self, actions, active: np.ndarray | None = None):
        """Step the environments; those not `active`, bool [N], stay as they are with reward 0.

        Raises InvalidAction for what `check_actions` refuses and for an action that the task does
        not have, and ResetNeeded before the first reset.
        """
        self._require_reset("step")
        actions = check_actions(actions, self.num_envs, self.num_actions)
        envs = slice(None) if active is None else np.flatnonzero(active)
        self.check_masks(actions, envs)
        reward, terminated = self._advance(actions[envs], envs)
        reward = reward.astype(np.float32, copy=False)
        if active is not None:
            all_rewards, ended = np.zeros(self.num_envs, np.float32), np.zeros(self.num_envs, bool)
            all_rewards[envs], ended[envs] = reward, terminated
            reward, terminated = all_rewards, ended
        return self._observation(), reward, terminated, np.zeros(self.num_envs, bool), {}

    def state(self) -> dict[str, np.ndarray]:
        """Return copies of the state, arrays [N, ...] by name."""
        self._require_reset("state")
        return {name: getattr(self, name).copy() for name in self._all_state_names}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Set the state to one returned by `state` of a world with the same settings and tasks."""
        for name in self._all_state_names:
            setattr(self, name, state[name].copy())

    def render(self) -> tuple | None:
        """Draw each environment, uint8 [H, W, 3]; None without a render mode."""
        self._require_reset("render")
        if self.render_mode is None:
            gymnasium.logger.warn("render() draws nothing without a render_mode.")
            return None
        return tuple(self._draw(env) for env in range(self.num_envs))

    @abstractmethod
    def _advance(self, actions: np.ndarray, envs: Envs) -> tuple[np.ndarray, np.ndarray]:
        """Take `actions`, int64 [M], in `envs`: reward, float32 [M], and terminated, bool [M]."""
        raise NotImplementedError

    @abstractmethod
    def _observation(self) -> np.ndarray | dict[str, np.ndarray]:
        """Return the observations of all N environments as new arrays, by part for a Dict space."""
        raise NotImplementedError

    def _begin(self, envs: np.ndarray) -> None:
        """Set the state with which the episodes of `envs`, int64 [M], start; by default nothing."""

    def _draw(self, env: int) -> np.ndarray:
        """Draw one environment, uint8 [H, W, 3]; only if `metadata` lists any "render_modes"."""
        raise NotImplementedError

    def _random(self, envs: Envs) -> np.ndarray:
        """Draw the next number in [0, 1) of each of `envs`, float64 [M]."""
        assert self._keys is not None  # only called after a reset
        numbers = uniform(self._keys[envs], self._draws[envs])
        self._draws[envs] += np.uint64(1)
        return numbers

    @property
    def is_reset(self) -> bool:
        """Whether there was a reset, so that there is a state."""
        return self._keys is not None

    @property
    def _all_state_names(self) -> tuple[str, ...]:
        return ("_keys", "_draws", *self.state_names)

    def _require_reset(self, method: str) -> None:
        if not self.is_reset:
            raise ResetNeeded(f"reset() comes before {method}()")

    def reset_mask(self, options: dict | None) -> np.ndarray:
        """Return the mask of the environments to reset, bool [N]; raises as SyncVectorEnv does."""
        mask = (options or {}).get("reset_mask")
        if mask is None:
            return np.ones(self.num_envs, bool)
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise TypeError(f"reset_mask must be an array of booleans, got {mask!r}")
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(f"reset_mask must mark at least one of {self.num_envs} environments")
        if not self.is_reset:
            raise ResetNeeded("the first reset must be of all environments")
        return mask

    def _seed_envs(self, seed, mask: np.ndarray) -> None:
        """Restart the random streams of the environments in `mask` that `seed` has a number for."""
        check_seeds(seed, self.num_envs)
        if isinstance(seed, int | np.integer):
            super().reset(seed=int(seed))
            seed = [(int(seed) + env) % 2**64 for env in range(self.num_envs)]
        keys = self._keys
        if keys is None:
            keys = self.np_random.integers(2**64, size=self.num_envs, dtype=np.uint64)
        for env in np.flatnonzero(mask) if seed is not None else ():
            if seed[env] is not None:
                keys[env], self._draws[env] = seed[env], 0
        self._keys = keys  # set last: a refused seed must not count as a reset


class WorldEnv(gymnasium.Env):
    """A world with one environment as a `gymnasium.Env`: plain int, float and bool.

    If its task has only the first of the world's actions, they are the action space.
    """

    def __init__(self, world: World):
        self.world, self.render_mode = world, world.render_mode
        self.metadata = {k: v for k, v in world.metadata.items() if k.startswith("render")}
        self.observation_space = world.single_observation_space
        mask = world.action_mask(world.tasks)
        is_first = mask is not None and not (np.diff(mask[0].astype(int)) > 0).any()
        count = int(mask[0].sum()) if is_first else world.num_actions
        self.action_space = Discrete(count)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """Begin an episode; a seed restarts the random stream."""
        super().reset(seed=seed)
        observation, info = self.world.reset(seed=seed)
        return self._only(observation), info

    def step(self, action):
        """Take one step. Raises gymnasium.error.InvalidAction for what is not an action."""
        observation, reward, terminated, truncated, info = self.world.step([action])
        outcome = float(reward[0]), bool(terminated[0]), bool(truncated[0])
        return self._only(observation), *outcome, info

    def render(self) -> np.ndarray | None:
        """Draw a frame, uint8 [H, W, 3]; None without a render mode."""
        pictures = self.world.render()
        return None if pictures is None else pictures[0]

    def _only(self, observation):
        """Return the observation of the only environment."""
        only = next(iterate(self.world.observation_space, observation))
        return int(only) if isinstance(self.observation_space, Discrete) else only
