"""Dark Room: a square room with a hidden goal; only the reward tells where it is.

Laskin et al. 2022, "In-context Reinforcement Learning with Algorithm Distillation", section 4:
9 x 9 cells, 20 steps, start in the center, five actions. There each step on the goal is rewarded
(`terminate_on_goal=False`, "dense" here); with `terminate_on_goal=True` the first reward ends the
episode.
"""

from collections.abc import Callable

import numpy as np

from envs.checks import check_tasks
from envs.grid.goal_search import GoalSearch
from envs.grid.grid_world import DOWN, LEFT, MOVES, RIGHT, STAY, UP, GridWorld
from envs.oracle import Reference
from envs.render import room_frames, room_text
from envs.world import WorldEnv

MAX_SIZE = 181  # cells along a side; the tables of all cells grow with its square


class DarkRoom(GridWorld):
    """N dark rooms; a task is the goal's (row, column), environment i has `tasks[i]`.

    The reward is 1 for a step that ends on the goal (staying there counts). An observation is the
    index row * size + column. With `random_start` an episode starts on any cell but the goal, all
    equally likely. Raises ValueError for a bad setting or task.
    """

    task_noun = "goal"

    def __init__(
        self,
        num_envs: int | None = None,
        tasks=None,
        size: int = 9,
        random_start: bool = False,
        terminate_on_goal: bool = True,
        render_mode: str | None = None,
    ):
        if type(size) is not int or not 2 <= size <= MAX_SIZE:
            raise ValueError(f"size must be an integer from 2 to {MAX_SIZE}, got {size!r}")
        if type(random_start) is not bool or type(terminate_on_goal) is not bool:
            raise ValueError("random_start and terminate_on_goal must be true or false")
        self.size, self.center = size, (size // 2) * (size + 1)
        self.random_start, self.terminate_on_goal = random_start, terminate_on_goal
        super().__init__(num_envs, tasks, (size, size), render_mode)
        self._goals = self._goal_cells(self.tasks)

    @classmethod
    def single(cls, goal: tuple[int, int] | None = None, **kwargs) -> WorldEnv:
        """Make one dark room as a Gymnasium environment; `goal` defaults to the first task."""
        return WorldEnv(cls(tasks=None if goal is None else [goal], **kwargs))

    @property
    def task_grid(self) -> tuple[int, int]:
        """The shape of the room: a task is a cell."""
        return self.shape

    @property
    def success_ends(self) -> bool:
        """Whether arriving on the goal ends the episode."""
        return self.terminate_on_goal

    def all_tasks(self) -> np.ndarray:
        """Return all goals, row by row, int64 [K, 2]: every cell but the center."""
        cells = np.delete(np.arange(self.size**2), self.center)
        return np.stack(np.divmod(cells, self.size), axis=1)

    def relative_tasks(self, tasks) -> np.ndarray:
        """Return the goals as offsets from the center, which are equal in rooms of any size."""
        return np.asarray(tasks) - self.size // 2

    def start_observations(self) -> np.ndarray:
        """Return where episodes may start, int64: the center, or with random starts all cells."""
        return np.arange(self.size**2) if self.random_start else np.array([self.center])

    def successors(self) -> np.ndarray:
        """Return the next observation of each observation and action, int64 [S, A], in any task."""
        return self._table.copy()

    def shortest_episode(self, tasks) -> np.ndarray:
        """Return the steps from start to goal in each task, float [K]; the mean over starts."""
        return self._mean_over_starts(tasks, lambda distance: distance)

    def steps_to_success(self, tasks) -> np.ndarray:
        """Return the steps from each cell to the goal, float [K, S]."""
        down, right = self._offsets(np.arange(self.size**2), self._goal_cells(tasks)[:, None])
        return (np.abs(down) + np.abs(right)).astype(float)

    def optimal_return(self, tasks, episode_length: int | None) -> np.ndarray:
        """Return the best possible expected return in each task, float [K].

        Terminating: 1 if the goal is within `episode_length` steps (None: no limit), else 0.
        Dense: one reward for each step from the arrival on, max(episode_length + 1 - distance, 0).
        """
        limit = np.inf if episode_length is None else episode_length
        if self.terminate_on_goal:
            return self._mean_over_starts(tasks, lambda distance: distance <= limit)
        return self._mean_over_starts(tasks, lambda d: np.maximum(limit + 1 - d, 0))

    def random_return(self, tasks, episode_length: int) -> np.ndarray:
        """Return the expected return of uniformly random actions in each task, float [K]."""
        return self._search(tasks, episode_length).random()[0]

    def references(self, tasks, episode_length: int, episodes: int) -> dict[str, Reference]:
        """Return the references of a search for a goal, float [K, E]: see `envs.grid.goal_search`.

        The explorer is left out if starts are random or the room is too large for its search.
        """
        return self._search(tasks, episode_length).references(episodes)

    def success(self, returns: np.ndarray) -> np.ndarray:
        """Return whether each return is above 0, so that the goal was reached."""
        return returns > 0

    def possible(self, transitions: dict[str, np.ndarray], tasks) -> np.ndarray:
        """Return which goals agree with reward, end and start of `transitions`, bool [..., K]."""
        goals = self._goal_cells(tasks)
        seen = {name: np.asarray(values)[..., None] for name, values in transitions.items()}
        reached = seen["next_observation"] == goals  # [..., K]
        starts = (seen["time"] == 0) | self.terminate_on_goal  # never on the goal
        agrees = (seen["reward"] == reached) & ~(starts & (seen["observation"] == goals))
        return agrees & (seen["terminated"] == (reached & self.terminate_on_goal))

    def optimal_policy(self, tasks) -> np.ndarray:
        """Return the probabilities of an optimal policy in each task, float64 [K, S, A].

        Actions that bring the agent closer to the goal along a row or a column share the
        probability equally; on the goal it stays.
        """
        cells = np.arange(self.size**2)
        down, right = self._offsets(cells, self._goal_cells(tasks)[:, None])  # [K, S] each
        best = np.zeros((len(tasks), len(cells), len(MOVES)))
        best[..., UP], best[..., DOWN] = down < 0, down > 0
        best[..., LEFT], best[..., RIGHT] = right < 0, right > 0
        best[..., STAY] = (down == 0) & (right == 0)
        return best / best.sum(-1, keepdims=True)

    def frames(self, task, transitions: dict[str, np.ndarray]) -> np.ndarray:
        """Draw one episode seen from above, uint8 [T + 1, H, W, 3]; see `envs.render`."""
        cells = np.append(transitions["observation"], transitions["next_observation"][-1])
        return room_frames(self.size, cells.astype(np.int64), tuple(task))

    def _outcome(self, envs, previous, actions, cells):
        reached = cells == self._goals[envs]
        terminated = reached if self.terminate_on_goal else np.zeros(len(cells), bool)
        return reached.astype(np.float32), terminated

    def _begin(self, envs):
        if not self.random_start:
            self._cells[envs] = self.center
            return
        cells = (self._random(envs) * (self.size**2 - 1)).astype(np.int64)
        self._cells[envs] = cells + (cells >= self._goals[envs])  # all cells but the goal

    def _draw(self, env):
        cell, goal = int(self._cells[env]), tuple(self.tasks[env])
        if self.render_mode == "ansi":
            return room_text(self.size, cell, goal)
        return room_frames(self.size, np.array([cell]), goal)[0]

    def _search(self, tasks, episode_length: int) -> GoalSearch:
        return GoalSearch(
            self._table,
            self.start_observations(),
            self._goal_cells(tasks),
            len(self.all_tasks()),
            episode_length,
            self.terminate_on_goal,
            self.optimal_return(tasks, episode_length),
        )

    def _goal_cells(self, tasks) -> np.ndarray:
        """Return the goals' cells, int64 [K]; ValueError if one is outside or on the start."""
        goals = check_tasks(tasks, 2)
        for row, column in goals[((goals < 0) | (goals >= self.size)).any(axis=1)]:
            room = f"{self.size} x {self.size} room"
            raise ValueError(f"goal ({row}, {column}) is outside the {room}")
        cells = goals @ [self.size, 1]
        if not self.random_start and (cells == self.center).any():
            half = self.size // 2
            raise ValueError(f"goal ({half}, {half}) is where episodes start")
        return cells

    def _offsets(self, cells, goals) -> tuple[np.ndarray, np.ndarray]:
        """Return the signed steps down and right from `cells` to `goals`, which may broadcast."""
        return goals // self.size - cells // self.size, goals % self.size - cells % self.size

    def _mean_over_starts(self, tasks, value: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Return the mean of `value(distance)` over the possible starts of each task, float [K]."""
        down, right = self._offsets(self.start_observations(), self._goal_cells(tasks)[:, None])
        distance = (np.abs(down) + np.abs(right)).astype(float)  # [K, starts]
        return np.mean(value(distance), axis=1, where=distance > 0)  # none starts on its goal
