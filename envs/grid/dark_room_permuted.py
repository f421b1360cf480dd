"""Dark Room with permuted actions: the goal is the same in all tasks, the controls are not.

Chen et al. 2025, "Filtering Learning Histories Enhances In-Context Reinforcement Learning"
(arXiv 2505.15143): 9 x 9 cells, 50 steps, a fixed goal in the corner opposite to the start, a
reward of 1 for each step on the goal. A task is one of the 120 permutations of the five actions.
"""

import itertools

import numpy as np

from envs.checks import check_integer, check_tasks
from envs.grid.dark_room import MAX_SIZE, DarkRoom
from envs.grid.grid_world import MOVES, GridWorld
from envs.oracle import Reference
from envs.render import room_frames


class DarkRoomPermuted(GridWorld):
    """N dark rooms in which action a of a task (m_0, ..., m_4) is the move m_a of a Dark Room.

    Episodes start in the upper left corner; the goal is the lower right one. An observation is the
    index row * size + column. Raises ValueError for a bad setting or task.
    """

    task_noun = task_argument = "permutation"
    action_names = ()  # they are other moves in each task

    def __init__(
        self, num_envs: int | None = None, tasks=None, size: int = 9, render_mode: str | None = None
    ):
        check_integer("size", size, 2, MAX_SIZE)
        self._room = DarkRoom(size=size, start="corner", terminate=False)  # knows the facts
        self._corner, self._goal = [[size - 1, size - 1]], size**2 - 1
        super().__init__(num_envs, tasks, self._room.shape, render_mode)
        self._moves = self._permutations(self.tasks)

    def all_tasks(self) -> np.ndarray:
        """Return all permutations of the moves in lexicographic order, int64 [120, 5]."""
        return np.array(list(itertools.permutations(range(len(MOVES)))))

    def shortest_episode(self, tasks) -> np.ndarray:
        """Return the steps from the start to the goal, which all tasks share, float [K]."""
        return self._for_each(tasks, self._room.shortest_episode(self._corner))

    def steps_to_success(self, tasks) -> np.ndarray:
        """Return the steps from each cell to the goal, float [K, S]."""
        return self._for_each(tasks, self._room.steps_to_success(self._corner))

    def optimal_return(self, tasks, episode_length: int | None) -> np.ndarray:
        """Return the return of a shortest path to the goal and staying there, float [K]."""
        return self._for_each(tasks, self._room.optimal_return(self._corner, episode_length))

    def random_return(self, tasks, episode_length: int) -> np.ndarray:
        """Return the expected return of uniformly random actions, float [K]."""
        return self._for_each(tasks, self._room.random_return(self._corner, episode_length))

    def references(self, tasks, episode_length: int, episodes: int) -> dict[str, Reference]:
        """Return the references of uniform actions and of an agent that knows the task."""
        lines = self._room.constant_references(self._corner, episode_length, episodes)
        parts = {name: (r.returns, r.successes, r.p_success) for name, r in lines.items()}
        return {
            name: Reference(*(self._for_each(tasks, part) for part in own if part is not None))
            for name, own in parts.items()
        }

    def success(self, returns: np.ndarray) -> np.ndarray:
        """Return whether each return is above 0, so that the goal was reached."""
        return returns > 0

    def optimal_policy(self, tasks) -> np.ndarray:
        """Return the optimal policy of a Dark Room with the actions of each task, [K, S, A]."""
        policy = self._room.optimal_policy(self._corner)[0]  # [S, moves]
        return policy[:, self._permutations(tasks)].swapaxes(0, 1)

    def possible(self, transitions: dict[str, np.ndarray], tasks) -> np.ndarray:
        """Return which permutations lead to the next observations, bool [..., K]."""
        moves = self._permutations(tasks).T[transitions["action"]]  # [..., K]
        seen = {name: np.asarray(values)[..., None] for name, values in transitions.items()}
        on_goal = seen["next_observation"] == self._goal
        leads = self._table[seen["observation"], moves] == seen["next_observation"]
        return leads & (seen["reward"] == on_goal) & ~seen["terminated"]

    def frames(self, task, transitions: dict[str, np.ndarray]) -> np.ndarray:
        """Draw one episode seen from above, uint8 [T + 1, H, W, 3]; see `envs.render`."""
        return self._room.frames(self._corner[0], transitions)

    def _advance(self, actions, envs):
        return super()._advance(self._moves[envs][np.arange(len(actions)), actions], envs)

    def _outcome(self, envs, previous, actions, cells):
        return (cells == self._goal).astype(np.float32), np.zeros(len(cells), bool)

    def _begin(self, envs):
        self._cells[envs] = 0

    def _draw(self, env):
        row, column = self._corner[0]
        return room_frames(self.shape, self._cells[[env]], (row, column))[0]

    def _permutations(self, tasks) -> np.ndarray:
        """Return the move of each task and action, int64 [K, 5]; ValueError for a bad task."""
        moves = check_tasks(tasks, len(MOVES))
        for move in moves[(np.sort(moves, axis=1) != np.arange(len(MOVES))).any(axis=1)].tolist():
            raise ValueError(f"a task must have each move from 0 to 4 once, got {move}")
        return moves

    def _for_each(self, tasks, fact: np.ndarray) -> np.ndarray:
        """Return a fact [1, ...] that all tasks share for each of `tasks`, [K, ...]."""
        return np.repeat(fact, len(self._permutations(tasks)), axis=0)
