"""The base class of grid worlds: rooms of cells with five moves and one table of successors.

A new grid world is a subclass with the hooks `_outcome`, `_begin` and `_draw` (`_observation` too
if an observation is more than a cell, and `_successor_table` if an action is not a move), and with
the facts that it can tell about its tasks, as DarkRoom has them. If its environments have state
besides their cells, it adds the arrays' names to `state_names`.
"""

import math
from functools import cached_property
from typing import ClassVar

import numpy as np
from gymnasium.spaces import Discrete

from envs.checks import check_integer
from envs.world import Envs, World

STAY, UP, DOWN, LEFT, RIGHT = range(5)
MOVES = np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]])  # (row, column), in action order
Size = int | list[int] | tuple[int, int]  # an integer for both, or [rows, columns]


def room_shape(size: Size, max_size: int) -> tuple[int, int]:
    """Return the rows and columns that the setting `size` names.

    Raises ValueError for anything else than one integer from 2 to `max_size`, or two of them.
    """
    pair = size if isinstance(size, list | tuple) else [size, size]
    if len(pair) != 2:
        raise ValueError(f"size must be an integer or [rows, columns], got {list(pair)}")
    rows, columns = (check_integer("size", part, 2, max_size) for part in pair)
    return rows, columns


def successor_table(rows: int, columns: int) -> np.ndarray:
    """Return the cell that each action leads to from each cell, int64 [rows * columns, 5].

    An action into a wall stays in its cell.
    """
    cells = np.stack(np.divmod(np.arange(rows * columns), columns), axis=1)  # [S, 2]
    reached = np.clip(cells[:, None] + MOVES, 0, [rows - 1, columns - 1])  # [S, A, 2]
    return reached[..., 0] * columns + reached[..., 1]


class GridWorld(World):
    """N rooms of `shape` = (rows, columns) with five moves. Observations are cells, int64 [N]."""

    metadata = World.metadata | {"render_modes": ["rgb_array"], "render_fps": 8}
    state_names: ClassVar[tuple[str, ...]] = ("_cells",)
    action_names = ("stay", "up", "down", "left", "right")

    def __init__(
        self, num_envs: int | None, tasks, shape: tuple[int, int], render_mode: str | None = None
    ):
        self.shape, self._table = shape, self._successor_table(shape)
        observations = Discrete(math.prod(self.observation_factors or shape))
        actions = Discrete(self._table.shape[1])
        super().__init__(num_envs, tasks, observations, actions, render_mode)
        self._cells = np.zeros(self.num_envs, np.int64)

    @cached_property
    def observation_factors(self) -> tuple[int, ...] | None:
        """The shape for `np.unravel_index(observation, observation_factors)`: (rows, columns)."""
        return self.shape

    @property
    def _num_cells(self) -> int:
        """The number S of cells of the room."""
        return self.shape[0] * self.shape[1]

    def _named_starts(self) -> dict[str, np.ndarray]:
        """Return the cells where episodes may start, int64, by the name of the setting."""
        rows, columns = self.shape
        center = rows // 2 * columns + columns // 2
        return {
            "center": np.array([center]),
            "corner": np.array([0]),
            "random": np.arange(rows * columns),
        }

    def _offsets(self, cells, goals) -> tuple[np.ndarray, np.ndarray]:
        """Return the signed moves down and right from `cells` to `goals`, which may broadcast."""
        columns = self.shape[1]
        return goals // columns - cells // columns, goals % columns - cells % columns

    def _distance(self, cells, goals) -> np.ndarray:
        """Return the fewest moves from `cells` to `goals`, which may broadcast, int64."""
        down, right = self._offsets(cells, goals)
        return np.abs(down) + np.abs(right)

    def _toward(self, goals: np.ndarray) -> np.ndarray:
        """Return the probabilities of moves that approach `goals`, int64 [K]: float64 [K, S, 5].

        The moves that bring the agent closer share the probability equally; on the goal it stays.
        """
        cells = np.arange(np.prod(self.shape))
        down, right = self._offsets(cells, goals[:, None])  # [K, S] each
        best = np.zeros((*down.shape, len(MOVES)))
        best[..., UP], best[..., DOWN] = down < 0, down > 0
        best[..., LEFT], best[..., RIGHT] = right < 0, right > 0
        best[..., STAY] = (down == 0) & (right == 0)
        return best / best.sum(-1, keepdims=True)

    def _advance(self, actions, envs):
        previous = self._cells[envs]
        cells = self._table.take(previous * self._table.shape[1] + actions)
        outcome = self._outcome(envs, previous, actions, cells)
        self._cells[envs] = cells
        return outcome

    def _outcome(
        self, envs: Envs, previous: np.ndarray, actions: np.ndarray, cells: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the reward, float32 [M], and terminated, bool [M], of the steps to `cells`.

        previous, actions, cells: int64 [M] each, for the M environments in `envs`.
        """
        raise NotImplementedError

    def _successor_table(self, shape: tuple[int, int]) -> np.ndarray:
        """Return the cell that each action leads to from each cell, int64 [S, A]."""
        return successor_table(*shape)

    def _observation(self):
        return self._cells.copy()
