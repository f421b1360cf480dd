"""Dark Room: a room with a hidden goal; only the reward shows where it is.

Laskin et al. 2022, "In-context Reinforcement Learning with Algorithm Distillation", section 4:
9 x 9 cells, 20 steps, start in the center, five actions, a reward of 1 for each step on the goal
(`reward="every_step", terminate=False`, "dense"). Their Dark Room Hard has 17 x 17 cells and pays
only once (`reward="once", terminate=False`). With `terminate=True` the first reward ends the
episode. `envs.presets` has the rooms of other papers.
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np

from envs.checks import check_choice, check_flag, check_tasks
from envs.grid.goal_search import GoalSearch
from envs.grid.grid_world import GridWorld, Size, room_shape
from envs.oracle import Reference
from envs.render import room_frames

MAX_SIZE = 181  # cells along a side; the tables of all cells grow with its square
REWARDS = ("every_step", "once")
Start = str | list[int] | tuple[int, int]


class DarkRoom(GridWorld):
    """N dark rooms; a task is the goal's (row, column), environment i has `tasks[i]`.

    An observation is the index row * columns + column. A step that ends on the goal has reward 1
    (staying there counts). Raises ValueError for a bad setting or task.

    size: the number of rows and of columns, or [rows, columns].
    start: the cell in which episodes start, "center", "corner" (the upper left one) or [row,
    column], or "random" for any cell, all equally likely.
    goal_on_start: whether the start may be the goal. Staying there in the first step then has the
    reward. Without it the start is no task, and a random start is any cell but the goal; the tasks
    are then those of a room with the start in the center.
    reward: "every_step" for each step that ends on the goal, "once" for the first of an episode.
    terminate: whether the first reward ends the episode; `reward` then makes no difference.
    """

    task_noun = task_argument = "goal"
    state_names = (*GridWorld.state_names, "_paid")

    def __init__(
        self,
        num_envs: int | None = None,
        tasks=None,
        size: Size = 9,
        start: Start = "center",
        goal_on_start: bool = False,
        reward: str = "every_step",
        terminate: bool = True,
        render_mode: str | None = None,
    ):
        self.shape = room_shape(size, MAX_SIZE)
        self._starts = self._start_cells(start)
        self.goal_on_start = check_flag("goal_on_start", goal_on_start)
        self.terminate = check_flag("terminate", terminate)
        self.pays_once = check_choice("reward", reward, REWARDS) == "once" or terminate
        super().__init__(num_envs, tasks, self.shape, render_mode)
        self._goals = self._goal_cells(self.tasks)
        self._paid = np.zeros(self.num_envs, bool)  # since the episode began; False if not once

    @cached_property
    def task_grid(self) -> tuple[int, int] | None:
        """The shape of the room: a task is a cell."""
        return self.shape

    @cached_property
    def success_ends(self) -> bool:
        """Whether arriving on the goal ends the episode."""
        return self.terminate

    def all_tasks(self) -> np.ndarray:
        """Return all goals, row by row, int64 [K, 2].

        These are all cells with `goal_on_start`, and else all but the start, or but the center if
        starts are random.
        """
        cells = np.arange(self._num_cells)
        if not self.goal_on_start:
            random = len(self._starts) > 1
            cells = np.delete(cells, self._named_starts()["center"] if random else self._starts)
        return np.stack(np.divmod(cells, self.shape[1]), axis=1)

    def relative_tasks(self, tasks) -> np.ndarray:
        """Return the goals as offsets from the center, which are equal in rooms of any size."""
        return np.asarray(tasks) - np.array(self.shape) // 2

    def start_observations(self) -> np.ndarray:
        """Return the cells where episodes may start, int64: one, or with random starts all."""
        return self._starts.copy()

    def successors(self) -> np.ndarray:
        """Return the next observation of each observation and action, int64 [S, A], in any task."""
        return self._table.copy()

    def shortest_episode(self, tasks) -> np.ndarray:
        """Return the fewest steps to a reward in each task, float [K]; the mean over starts."""
        return self._mean_over_starts(tasks, lambda steps: steps)

    def steps_to_success(self, tasks) -> np.ndarray:
        """Return the steps from each cell to the goal, float [K, S].

        On the goal they are 0, or with `goal_on_start`, where an episode may begin there, 1.
        """
        steps = self._steps(np.arange(self._num_cells), self._goal_cells(tasks)[:, None])
        return np.maximum(steps, self.goal_on_start)

    def optimal_return(self, tasks, episode_length: int | None) -> np.ndarray:
        """Return the best possible expected return in each task, float [K].

        Paid once: 1 if the goal is within `episode_length` steps (None: no limit), else 0. Paid in
        every step: max(episode_length + 1 - n, 0), where step n is the first that can end on the
        goal: the distance, or 1 if the start is the goal.
        """
        limit = np.inf if episode_length is None else episode_length
        if self.pays_once:
            return self._mean_over_starts(tasks, lambda steps: steps <= limit)
        return self._mean_over_starts(tasks, lambda steps: np.maximum(limit + 1 - steps, 0))

    def random_return(self, tasks, episode_length: int) -> np.ndarray:
        """Return the expected return of uniformly random actions in each task, float [K]."""
        return self._search(tasks, episode_length).random()[0]

    def references(self, tasks, episode_length: int, episodes: int) -> dict[str, Reference]:
        """Return the references of a search for a goal, float [K, E]: see `envs.grid.goal_search`.

        The explorer is left out if starts are random or the room is too large for its search.
        """
        in_reach = self.optimal_return(self.all_tasks(), episode_length) > 0
        return self._search(tasks, episode_length).references(episodes, int(in_reach.sum()))

    def constant_references(
        self, tasks, episode_length: int, episodes: int
    ) -> dict[str, Reference]:
        """Return the references that neither learn nor search, random and optimal."""
        return self._search(tasks, episode_length).constants(episodes)

    def success(self, returns: np.ndarray) -> np.ndarray:
        """Return whether each return is above 0, so that the goal was reached."""
        return returns > 0

    def possible(self, transitions: dict[str, np.ndarray], tasks) -> np.ndarray:
        """Return which goals agree with reward, end and start of `transitions`, bool [..., K].

        If a room pays once and continues, a later step on the goal has no reward, as one on any
        other cell has. A transition is taken for one before the reward or for the rewarded one,
        which leaves a single goal: callers leave out what comes after it.
        """
        goals = self._goal_cells(tasks)
        seen = {name: np.asarray(values)[..., None] for name, values in transitions.items()}
        step = (seen[name] for name in ("observation", "action", "next_observation"))
        reached, begins = self._reaches(*step, goals), seen["time"] == 0
        never = (begins & (not self.goal_on_start)) | (~begins & self.pays_once)  # on the goal
        agrees = (seen["reward"] == reached) & ~(never & (seen["observation"] == goals))
        return agrees & (seen["terminated"] == (reached & self.terminate))

    def optimal_policy(self, tasks) -> np.ndarray:
        """Return the probabilities of an optimal policy in each task, float64 [K, S, A].

        Actions that bring the agent closer to the goal along a row or a column share the
        probability equally; on the goal it stays.
        """
        return self._toward(self._goal_cells(tasks))

    def frames(self, task, transitions: dict[str, np.ndarray]) -> np.ndarray:
        """Draw one episode seen from above, uint8 [T + 1, H, W, 3]; see `envs.render`.

        The goal counts as found while the agent is on it, or if the room pays once, from the reward
        on.
        """
        cells = np.append(transitions["observation"], transitions["next_observation"][-1])
        paid = None
        if self.pays_once:
            paid = np.logical_or.accumulate(np.append(False, transitions["reward"] > 0))
        return room_frames(self.shape, cells.astype(np.int64), tuple(task), reached=paid)

    def _outcome(self, envs, previous, actions, cells):
        reached = self._reaches(previous, actions, cells, self._goals[envs])
        terminated = reached if self.terminate else np.zeros(len(cells), bool)
        if self.pays_once:
            reached = reached & ~self._paid[envs]
            self._paid[envs] |= reached
        return reached.astype(np.float32), terminated

    def _begin(self, envs):
        self._paid[envs] = False
        if len(self._starts) == 1:
            self._cells[envs] = self._starts
        elif self.goal_on_start:
            self._cells[envs] = self._random(envs) * self._num_cells
        else:
            cells = (self._random(envs) * (self._num_cells - 1)).astype(np.int64)
            self._cells[envs] = cells + (cells >= self._goals[envs])  # all cells but the goal

    def _draw(self, env):
        paid = self._paid[[env]] if self.pays_once else None
        return room_frames(self.shape, self._cells[[env]], tuple(self.tasks[env]), reached=paid)[0]

    def _search(self, tasks, episode_length: int) -> GoalSearch:
        return GoalSearch(
            self._table,
            self._starts,
            self._goal_cells(tasks),
            episode_length,
            self.goal_on_start,
            self.pays_once,
            self.optimal_return(tasks, episode_length),
        )

    def _start_cells(self, start: Start) -> np.ndarray:
        """Return the cells where episodes may start, int64; ValueError for a bad `start`."""
        named = self._named_starts()
        if isinstance(start, str) and start in named:
            return named[start]
        is_cell = isinstance(start, list | tuple) and [type(part) for part in start] == [int, int]
        rows, columns = self.shape
        if is_cell and 0 <= start[0] < rows and 0 <= start[1] < columns:
            return np.array([start[0] * columns + start[1]])
        known = f"{', '.join(named)} or the [row, column] of a cell of the room"
        raise ValueError(f"start must be {known}, got {start!r}")

    def _goal_cells(self, tasks) -> np.ndarray:
        """Return the goals' cells, int64 [K]; ValueError if one is outside or on the start."""
        goals = check_tasks(tasks, 2)
        for row, column in goals[((goals < 0) | (goals >= self.shape)).any(axis=1)]:
            room = f"{self.shape[0]} x {self.shape[1]} room"
            raise ValueError(f"goal ({row}, {column}) is outside the {room}")
        cells = goals @ [self.shape[1], 1]
        if len(self._starts) == 1 and not self.goal_on_start and self._starts[0] in cells:
            row, column = divmod(int(self._starts[0]), self.shape[1])
            raise ValueError(f"goal ({row}, {column}) is where episodes start")
        return cells

    def _steps(self, cells, goals) -> np.ndarray:
        """Return the fewest steps from `cells` to `goals`, which may broadcast, float."""
        return self._distance(cells, goals).astype(float)

    def _reaches(self, cells, actions, next_cells, goals) -> np.ndarray:
        """Return whether steps from `cells` to `next_cells` reach `goals`; all may broadcast."""
        return next_cells == goals

    def _mean_over_starts(self, tasks, value: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Return the mean of `value(fewest steps)` over the starts of each task, float [K]."""
        goals = self._goal_cells(tasks)[:, None]
        steps = np.maximum(self._steps(self._starts, goals), 1)  # 1 to stay on a goal, [K, starts]
        begins = self.goal_on_start | (self._starts != goals)
        return np.mean(value(steps), axis=1, where=begins)
