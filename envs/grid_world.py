"""The base class of grid worlds: vectorized moves, masked resets, random streams.

`GridWorld` is a Gymnasium vector environment that steps N environments at once with one table of
successors: no loop over environments, no subprocess. It never resets by itself (autoreset mode
DISABLED); `envs.wrappers.VectorEpisodeLength` adds the time limit and the three autoreset modes.
`GridWorldEnv` wraps a GridWorld of one environment as a `gymnasium.Env`, so the rules exist once.

A new world is a subclass with the hooks `_outcome`, `_begin`, `_draw` (and `_observation` if an
observation is more than a cell), and with methods for facts about its tasks, as DarkRoom has them.
If its environments have state besides their cells, it adds the arrays' names to `state_names`.
"""

import operator
from typing import ClassVar

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.checks import check_actions
from envs.rng import uniform

STAY, UP, DOWN, LEFT, RIGHT = range(5)
MOVES = np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]])  # (row, column), in action order
RENDERING = {"render_modes": ["rgb_array", "ansi"], "render_fps": 8}


def successor_table(rows: int, columns: int) -> np.ndarray:
    """Return the cell that each action leads to from each cell, int64 [rows * columns, 5].

    An action into a wall stays in its cell.
    """
    cells = np.stack(np.divmod(np.arange(rows * columns), columns), axis=1)  # [S, 2]
    reached = np.clip(cells[:, None] + MOVES, 0, [rows - 1, columns - 1])  # [S, A, 2]
    return reached[..., 0] * columns + reached[..., 1]


class GridWorld(VectorEnv):
    """N rooms of rows x columns cells with five moves; each has a random stream of its own.

    Observations are int64 [N], rewards float32 [N], terminated and truncated bool [N]; truncated is
    always False here. The random number that starts an episode depends only on the environment's
    seed and on how many episodes it has begun since: its transitions are the same in any batch.
    """

    metadata: ClassVar[dict] = {**RENDERING, "autoreset_mode": AutoresetMode.DISABLED}
    state_names: ClassVar[tuple[str, ...]] = ("_cells", "_keys", "_episodes")  # arrays [N, ...]

    def __init__(self, num_envs: int, shape: tuple[int, int], render_mode: str | None = None):
        if render_mode not in (None, *RENDERING["render_modes"]):
            modes = " and ".join(RENDERING["render_modes"])
            raise ValueError(f"render_mode {render_mode!r} is unknown, there are {modes}")
        self.num_envs, self.shape, self.render_mode = num_envs, shape, render_mode
        self._table = successor_table(*shape)
        self.single_action_space = Discrete(len(MOVES))
        self.single_observation_space = Discrete(int(np.prod(self.observation_factors)))
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._cells: np.ndarray | None = None  # [N], None before the first reset
        self._keys: np.ndarray | None = None  # uint64 [N], keys of the random streams
        self._episodes = np.zeros(num_envs, np.uint64)  # episodes begun since seeding

    @property
    def observation_factors(self) -> tuple[int, ...]:
        """The shape for `np.unravel_index(observation, observation_factors)`: (rows, columns)."""
        return self.shape

    def relative_tasks(self, tasks) -> np.ndarray:
        """Return tasks, which are cells, as offsets from the center: equal in rooms of any size."""
        return np.asarray(tasks) - np.array(self.shape) // 2

    def reset(self, *, seed=None, options=None):
        """Begin an episode in each environment, or in those of `options["reset_mask"]`, bool [N].

        An int `seed` seeds environment i with seed + i; a list of N seeds each of them. None, also
        in the list, continues the random stream, which starts at random the first time.
        """
        mask = self._reset_mask(options)
        self._seed_envs(seed, mask)
        if self._cells is None:
            self._cells = np.zeros(self.num_envs, np.int64)
        envs = np.flatnonzero(mask)
        self._begin(envs)
        self._episodes[envs] += np.uint64(1)
        return self._observation(), {}

    def step(self, actions, active: np.ndarray | None = None):
        """Step the environments; those not `active`, bool [N], stay as they are with reward 0.

        Raises InvalidAction (see `check_actions`) and, before the first reset, ResetNeeded.
        """
        if self._cells is None:
            raise ResetNeeded("reset() comes before step()")
        actions = check_actions(actions, self.num_envs, len(MOVES))
        if active is not None:
            actions[~active] = STAY
        previous = self._cells
        self._cells = self._table.take(previous * len(MOVES) + actions)
        reward, terminated = self._outcome(previous, actions, self._cells)
        if active is not None:
            reward, terminated = reward * active, terminated & active
        return self._observation(), reward, terminated, np.zeros(self.num_envs, bool), {}

    def state(self) -> dict[str, np.ndarray]:
        """Return copies of the state, arrays [N, ...] by name."""
        if self._cells is None:
            raise ResetNeeded("reset() comes before state()")
        return {name: getattr(self, name).copy() for name in self.state_names}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Set the state to one returned by `state` of a world with the same settings and tasks."""
        for name in self.state_names:
            setattr(self, name, state[name].copy())

    def render(self) -> tuple | None:
        """Draw each environment, uint8 [H, W, 3] or, in mode ansi, a str; None without a mode."""
        if self._cells is None:
            raise ResetNeeded("reset() comes before render()")
        if self.render_mode is None:
            gymnasium.logger.warn("render() draws nothing without a render_mode.")
            return None
        return tuple(self._draw(env) for env in range(self.num_envs))

    def _outcome(self, previous, actions, cells) -> tuple[np.ndarray, np.ndarray]:
        """Return the reward, float32 [N], and terminated, bool [N], of the step to `cells`."""
        raise NotImplementedError

    def _begin(self, envs: np.ndarray) -> None:
        """Set the cells in which the episodes of `envs`, int64 [M], start; draw with `_random`."""
        raise NotImplementedError

    def _draw(self, env: int) -> np.ndarray | str:
        """Draw one environment as a frame or a text, by `render_mode`."""
        raise NotImplementedError

    def _observation(self) -> np.ndarray:
        """Return the observations, int64 [N], as a new array."""
        return self._cells.copy()

    def _random(self, envs: np.ndarray) -> np.ndarray:
        """Draw the number in [0, 1) of the episode that begins in each of `envs`, int64 [M]."""
        return uniform(self._keys[envs], self._episodes[envs])

    def _reset_mask(self, options: dict | None) -> np.ndarray:
        """Return the mask of the environments to reset, bool [N]; raises as SyncVectorEnv does."""
        mask = (options or {}).get("reset_mask")
        if mask is None:
            return np.ones(self.num_envs, bool)
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise TypeError(f"reset_mask must be an array of booleans, got {mask!r}")
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(f"reset_mask must mark at least one of {self.num_envs} environments")
        if self._cells is None:
            raise ResetNeeded("the first reset must be of all environments")
        return mask

    def _seed_envs(self, seed, mask: np.ndarray) -> None:
        """Restart the random streams of the environments in `mask` that `seed` has a number for."""
        if isinstance(seed, int | np.integer):
            super().reset(seed=int(seed))
            seed = [int(seed) + env for env in range(self.num_envs)]
        if self._keys is None:
            self._keys = self.np_random.integers(2**64, size=self.num_envs, dtype=np.uint64)
        if seed is None:
            return
        if len(seed) != self.num_envs:
            raise ValueError(f"expected {self.num_envs} seeds, got {len(seed)}")
        for env in np.flatnonzero(mask):
            if seed[env] is not None:
                self._keys[env], self._episodes[env] = operator.index(seed[env]), 0


class GridWorldEnv(gymnasium.Env):
    """A grid world with one environment as a `gymnasium.Env`: plain int, float and bool."""

    metadata = RENDERING

    def __init__(self, world: GridWorld):
        self.world = world
        self.observation_space = world.single_observation_space
        self.action_space = world.single_action_space
        self.render_mode = world.render_mode

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """Begin an episode; a seed restarts the random stream."""
        super().reset(seed=seed)
        observation, info = self.world.reset(seed=seed)
        return int(observation[0]), info

    def step(self, action):
        """Take one of the five moves. Raises gymnasium.error.InvalidAction for anything else."""
        observation, reward, terminated, truncated, info = self.world.step([action])
        return int(observation[0]), float(reward[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> np.ndarray | str | None:
        """Draw a frame, uint8 [H, W, 3], or a text; None without a render mode."""
        pictures = self.world.render()
        return pictures and pictures[0]
