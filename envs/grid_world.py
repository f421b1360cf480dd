"""What grid worlds share: batched moves, masked resets, a random stream a lane.

`GridWorld` is a Gymnasium vector environment that steps all lanes at once by looking up one table
of successors: no loop over lanes, no subprocess. It never resets by itself (autoreset DISABLED);
`envs.wrappers.VectorEpisodeLength` adds the time limit and the three autoreset modes.
`GridWorldEnv` is a batch of one behind the single-environment interface, so the rules exist once.

A new world is a subclass with the hooks `_outcome`, `_begin`, `_draw` (and `_observation` where a
lane sees more than its cell), and with the methods that tell what it knows, as DarkRoom has them.
What its lanes remember besides their cells it names in `lane_state`.
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
    """The cell that each action leads to from each cell, int64 [rows * columns, 5]; walls clip."""
    cells = np.stack(np.divmod(np.arange(rows * columns), columns), axis=1)  # [S, 2]
    reached = np.clip(cells[:, None] + MOVES, 0, [rows - 1, columns - 1])  # [S, A, 2]
    return reached[..., 0] * columns + reached[..., 1]


class GridWorld(VectorEnv):
    """A batch of rooms of rows x columns cells, five moves, one random stream a lane.

    Observations are int64 [N], rewards float32 [N], terminated and truncated bool [N]; truncated is
    always False here. The number that starts an episode depends on the lane's seed and on how many
    episodes the lane has begun since, on nothing else: a lane lives the same life in any batch.
    """

    metadata: ClassVar[dict] = {**RENDERING, "autoreset_mode": AutoresetMode.DISABLED}
    lane_state: ClassVar[tuple[str, ...]] = ("_cells", "_keys", "_episodes")  # arrays [N, ...]

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
        self._keys: np.ndarray | None = None  # [N] uint64, the key of each lane's random stream
        self._episodes = np.zeros(num_envs, np.uint64)  # begun since the lane was seeded

    @property
    def observation_factors(self) -> tuple[int, ...]:
        """`np.unravel_index(observation, observation_factors)` takes an observation apart."""
        return self.shape

    def relative_tasks(self, tasks) -> np.ndarray:
        """Return what tasks are called in rooms of every size: cells as offsets from the center."""
        return np.asarray(tasks) - np.array(self.shape) // 2

    def reset(self, *, seed=None, options=None):
        """Begin an episode in every lane, or in those of `options["reset_mask"]`, bool [N].

        `seed`: an int seeds lane i with seed + i; N ints seed each lane (None in the list: that
        lane's stream goes on); None: all streams go on, and start at random the first time.
        """
        mask = self._reset_mask(options)
        self._seed_lanes(seed, mask)
        if self._cells is None:
            self._cells = np.zeros(self.num_envs, np.int64)
        lanes = np.flatnonzero(mask)
        self._begin(lanes)
        self._episodes[lanes] += np.uint64(1)
        return self._observation(), {}

    def step(self, actions, active: np.ndarray | None = None):
        """Move every lane; lanes outside `active`, bool [N], stand still and get no reward.

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
        """Copies of all that the lanes' future depends on, arrays [N, ...] by name, once reset."""
        if self._cells is None:
            raise ResetNeeded("reset() comes before state()")
        return {name: getattr(self, name).copy() for name in self.lane_state}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from what `state` of a world with the same settings and tasks gave."""
        for name in self.lane_state:
            setattr(self, name, state[name].copy())

    def render(self) -> tuple | None:
        """A picture of each lane: uint8 [H, W, 3] or, in mode ansi, a str; None without a mode."""
        if self._cells is None:
            raise ResetNeeded("reset() comes before render()")
        if self.render_mode is None:
            gymnasium.logger.warn("render() draws nothing without a render_mode.")
            return None
        return tuple(self._draw(lane) for lane in range(self.num_envs))

    def _outcome(self, previous, actions, cells) -> tuple[np.ndarray, np.ndarray]:
        """What the step to `cells` brings: reward float32 [N], terminated bool [N]."""
        raise NotImplementedError

    def _begin(self, lanes: np.ndarray) -> None:
        """Put the `lanes` (int64 [M]) where their episode starts; `_random` gives their numbers."""
        raise NotImplementedError

    def _draw(self, lane: int) -> np.ndarray | str:
        """One lane as a frame or a text, by `render_mode`."""
        raise NotImplementedError

    def _observation(self) -> np.ndarray:
        """What each lane sees, int64 [N], a fresh array."""
        return self._cells.copy()

    def _random(self, lanes: np.ndarray) -> np.ndarray:
        """The number in [0, 1) that belongs to the episode now beginning in each of the `lanes`."""
        return uniform(self._keys[lanes], self._episodes[lanes])

    def _reset_mask(self, options: dict | None) -> np.ndarray:
        """The lanes that a reset means, bool [N]; errors as those of gymnasium's SyncVectorEnv."""
        mask = (options or {}).get("reset_mask")
        if mask is None:
            return np.ones(self.num_envs, bool)
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise TypeError(f"reset_mask must be an array of booleans, got {mask!r}")
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(f"reset_mask must mark at least one of {self.num_envs} lanes")
        if self._cells is None:
            raise ResetNeeded("the first reset is one of all lanes")
        return mask

    def _seed_lanes(self, seed, mask: np.ndarray) -> None:
        """Restart the streams of the lanes in `mask` for which `seed` has a number."""
        if isinstance(seed, int | np.integer):
            super().reset(seed=int(seed))
            seed = [int(seed) + lane for lane in range(self.num_envs)]
        if self._keys is None:
            self._keys = self.np_random.integers(2**64, size=self.num_envs, dtype=np.uint64)
        if seed is None:
            return
        if len(seed) != self.num_envs:
            raise ValueError(f"expected {self.num_envs} seeds, got {len(seed)}")
        for lane in np.flatnonzero(mask):
            if seed[lane] is not None:
                self._keys[lane], self._episodes[lane] = operator.index(seed[lane]), 0


class GridWorldEnv(gymnasium.Env):
    """One lane of a grid world as a Gymnasium environment: plain int, float and bool."""

    metadata = RENDERING

    def __init__(self, batch: GridWorld):
        self.batch = batch
        self.observation_space = batch.single_observation_space
        self.action_space = batch.single_action_space
        self.render_mode = batch.render_mode

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """Begin an episode; a seed restarts the random stream."""
        super().reset(seed=seed)
        observation, info = self.batch.reset(seed=seed)
        return int(observation[0]), info

    def step(self, action):
        """Take one of the five moves. Raises gymnasium.error.InvalidAction for anything else."""
        observation, reward, terminated, truncated, info = self.batch.step([action])
        return int(observation[0]), float(reward[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> np.ndarray | str | None:
        """A frame uint8 [H, W, 3], a text, or None without a render mode."""
        pictures = self.batch.render()
        return pictures and pictures[0]
