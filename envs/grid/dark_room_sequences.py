"""Dark Room with sequences of moves as actions: 125 actions of three moves each.

Sinii et al. 2023, "In-Context Reinforcement Learning for Variable Action Spaces" (arXiv
2312.13327): 9 x 9 cells, 20 steps, start in the center. A step makes all three moves; if one of
them ends on the goal, the step has reward 1 and ends the episode. Here all 125 actions are always
there; the paper trains on some of them.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from envs.checks import check_integer
from envs.grid.dark_room import DarkRoom
from envs.grid.goal_search import GoalSearch
from envs.grid.grid_world import MOVES, successor_table
from envs.oracle import Reference

LENGTH = 3  # moves of an action
MAX_SIZE = 17  # cells along a side: an optimal policy has a number per goal, cell and action


class DarkRoomSequences(DarkRoom):
    """N dark rooms; action 25 * i + 5 * j + k makes the moves i, j and k. A task is a goal.

    An observation is the index row * size + column of the cell after the last move.
    `goal_on_start` is that of a Dark Room. Raises ValueError for a bad setting or task.
    """

    action_names = ()

    def __init__(
        self,
        num_envs: int | None = None,
        tasks=None,
        size: int = 9,
        goal_on_start: bool = False,
        render_mode: str | None = None,
    ):
        check_integer("size", size, 2, MAX_SIZE)
        super().__init__(
            num_envs, tasks, size, goal_on_start=goal_on_start, render_mode=render_mode
        )

    def optimal_policy(self, tasks) -> np.ndarray:
        """Return the probabilities of an optimal policy in each task, float64 [K, S, A].

        The actions that pass the goal share the probability equally, or where none does those that
        leave the fewest steps.
        """
        goals = self._goal_cells(tasks)
        steps = self._steps(np.arange(self._num_cells), goals[:, None])  # [K, S]
        passes = (self._passed == goals[:, None, None, None]).any(-1)  # [K, S, A]
        closer = steps[:, self._table] == steps[..., None] - 1
        best = np.where(steps[..., None] > 1, closer, passes).astype(float)
        return best / best.sum(-1, keepdims=True)

    def _successor_table(self, shape):
        moves = successor_table(*shape)
        self._passed = np.arange(len(moves))[:, None, None]  # becomes [S, A, moves]
        for _ in range(LENGTH):
            number = self._passed.shape[1] * len(MOVES)
            after = moves[self._passed[..., -1]].reshape(len(moves), number, 1)
            self._passed = np.append(np.repeat(self._passed, len(MOVES), axis=1), after, axis=-1)
        self._passed = self._passed[..., 1:]  # without the cell before the first move
        return self._passed[..., -1].copy()

    def _steps(self, cells, goals):
        return np.ceil(super()._steps(cells, goals) / LENGTH)

    def _reaches(self, cells, actions, next_cells, goals):
        return (self._passed[cells, actions] == goals[..., None]).any(-1)

    def _search(self, tasks, episode_length):
        return SequenceSearch(**vars(super()._search(tasks, episode_length)), passed=self._passed)


@dataclass(frozen=True)
class SequenceSearch(GoalSearch):
    """The search for a goal that ends the episode, with steps of several moves.

    passed: int [S, A, moves], the cells after each move.
    """

    passed: np.ndarray
    cells_per_step = LENGTH

    def explorer(self, episodes: int) -> Reference | None:
        """Return None: the search for paths takes a step for one cell."""
        return None

    @cached_property
    def arrives(self) -> np.ndarray:
        """Whether each action passes the goal of each task from each cell, bool [A, K, S]."""
        passed, goals = self.passed.swapaxes(0, 1)[:, None], self.goals[:, None, None]
        return (passed == goals).any(-1)

    def _random_walk_values(self, rewards, arrival_ends):
        values = np.zeros((len(self.goals), len(self.successors)))
        for reward in rewards:
            steps = zip(self.arrives, self.successors.T, strict=True)
            after = (np.where(arrives, reward, values[:, cells]) for arrives, cells in steps)
            values = sum(after, np.zeros_like(values)) / len(self.arrives)
        return values
