"""Key-to-Door: a dark room with a hidden key, and a hidden door that only the key opens.

Laskin et al. 2022, "In-context Reinforcement Learning with Algorithm Distillation", section 4,
"Dark Key-to-Door": 9 x 9 cells, 50 steps, episodes start on random cells, reward 1 for reaching the
key the first time, and reward 1 for reaching the door with the key once. They do not say whether
the door ends the episode. Here it does, as in Tarasov et al. 2025 (arXiv 2502.17666); ending it
there changes no return. With `door_pays="every_step"` the door pays at each step that ends on it
with the key and nothing ends the episode (Schmied et al. 2024, arXiv 2410.07071).

Laskin et al. count 81 ** 2 = 6,561 tasks. The 81 whose door is where the key lies are left out,
because one step would pay 2 in them: 81 * 80 = 6,480 tasks remain. An episode may start where the
key lies; the key is then picked up by the next step that ends there, as by staying.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import ClassVar

import numpy as np

from envs.checks import check_choice, check_flag, check_tasks
from envs.grid.grid_world import GridWorld, Size, room_shape
from envs.oracle import Reference, constant_reference
from envs.render import key_door_frames

MAX_SIZE = 40  # cells along a side: a room of S cells has S * (S - 1) tasks
STARTS = ("random", "center", "corner")
DOOR_PAYS = ("once", "every_step")
BOTH = 2  # the return of an episode that reached the key and, once, the door


class KeyToDoor(GridWorld):
    """N dark rooms; a task is (key row, key column, door row, door column), two different cells.

    size: the number of rows and of columns, or [rows, columns].
    start: where episodes start: on a random cell of all, in the center, or in the corner (0, 0).
    see_key: whether an observation shows if the key is held. It is then the index
    held * S + row * columns + column in a room of S cells, else row * columns + column.
    door_pays: once, which ends the episode, or at every step that ends on the door with the key.
    A reward is 0 or 1. Raises ValueError for a bad setting or task.
    """

    state_names: ClassVar[tuple[str, ...]] = (*GridWorld.state_names, "_held")

    def __init__(
        self,
        num_envs: int | None = None,
        tasks=None,
        size: Size = 9,
        start: str = "random",
        see_key: bool = False,
        door_pays: str = "once",
        render_mode: str | None = None,
    ):
        shape = room_shape(size, MAX_SIZE)
        self.start = check_choice("start", start, STARTS)
        self.see_key = check_flag("see_key", see_key)
        self.door_pays = check_choice("door_pays", door_pays, DOOR_PAYS)
        super().__init__(num_envs, tasks, shape, render_mode)
        self._key_cells, self._door_cells = self._task_cells(self.tasks)
        self._held = np.zeros(self.num_envs, bool)

    @cached_property
    def observation_factors(self) -> tuple[int, ...] | None:
        """The shape for unravel_index: (rows, columns), with `see_key` (2, rows, columns)."""
        return (2, *self.shape) if self.see_key else self.shape

    @cached_property
    def success_ends(self) -> bool:
        """Whether reaching the door with the key ends the episode."""
        return self.door_pays == "once"

    def all_tasks(self) -> np.ndarray:
        """Return all pairs of different cells, int64 [S * (S - 1), 4]."""
        key, door = np.divmod(np.arange(self._num_cells**2), self._num_cells)
        columns = self.shape[1]
        pairs = np.stack([*np.divmod(key, columns), *np.divmod(door, columns)], axis=1)
        return pairs[key != door]

    def names(self, tasks) -> list[str]:
        """Return the names of `tasks`: "key (0, 3), door (7, 1)"."""
        rows = check_tasks(tasks, 4).tolist()
        return [f"key ({a}, {b}), door ({c}, {d})" for a, b, c, d in rows]

    def relative_tasks(self, tasks) -> np.ndarray:
        """Return keys and doors as offsets from the center, equal in rooms of any size, [K, 4]."""
        return np.asarray(tasks) - np.tile(np.array(self.shape) // 2, 2)

    def start_cells(self) -> np.ndarray:
        """Return the cells where episodes may start, int64, all equally likely."""
        return self._named_starts()[self.start]

    def states(self) -> np.ndarray | None:
        """Return held * S + cell, int64 [N]; None with `see_key`: it is the observation."""
        return None if self.see_key else self._state_index()

    def steps_to_success(self, tasks) -> np.ndarray:
        """Return the fewest steps to the door with the key from each state, float [K, 2 * S]."""
        keys, doors = self._task_cells(tasks)
        cells = np.arange(self._num_cells)
        without = self._steps(cells, keys[:, None]) + self._steps(keys, doors)[:, None]
        return np.concatenate([without, self._steps(cells, doors[:, None])], axis=1).astype(float)

    def shortest_episode(self, tasks) -> np.ndarray:
        """Return the fewest steps from start to door in each task, float [K]; mean over starts."""
        return self.steps_to_success(tasks)[:, self.start_cells()].mean(1)

    def optimal_return(self, tasks, episode_length: int | None) -> np.ndarray:
        """Return the best possible expected return in each task, float [K].

        1 if the key is within `episode_length` steps (None: no limit). The door adds 1 if it is
        within them too, or 1 for each step from the arrival on if it pays at every step.
        """
        limit = np.inf if episode_length is None else episode_length
        keys, doors = self._task_cells(tasks)
        to_key = self._steps(self.start_cells(), keys[:, None])  # [K, starts]
        left = limit + 1 - to_key - self._steps(keys, doors)[:, None]  # can end on the door
        at_door = left >= 1 if self.success_ends else np.maximum(left, 0)
        return ((to_key <= limit) + at_door.astype(float)).mean(1)

    def random_return(self, tasks, episode_length: int) -> np.ndarray:
        """Return the expected return of uniformly random actions in each task, float [K]."""
        to_key, _, at_door = self._random_walk(tasks, episode_length)
        return to_key + at_door

    def references(self, tasks, episode_length: int, episodes: int) -> dict[str, Reference]:
        """Return the curve of uniformly random actions, float [K, E]."""
        to_key, reached, at_door = self._random_walk(tasks, episode_length)
        return {"random": constant_reference(to_key + at_door, reached, episodes)}

    def success(self, returns: np.ndarray) -> np.ndarray:
        """Return whether each return is at least 2, so that the door was reached with the key."""
        return returns >= BOTH

    def optimal_policy(self, tasks) -> np.ndarray:
        """Return the action probabilities of an optimal policy, float64 [K, 2 * S, A], by state.

        Without the key it goes to the key, with it to the door. Actions that bring the agent closer
        share the probability equally; on the cell that it goes to it stays.
        """
        keys, doors = self._task_cells(tasks)
        return np.concatenate([self._toward(keys), self._toward(doors)], axis=1)

    def possible(self, transitions: dict[str, np.ndarray], tasks) -> np.ndarray:
        """Return which tasks agree with reward and end of `transitions`, bool [..., K].

        Without `see_key` it needs the field `state` too: a reward shows where the door is only if
        it is known whether the key was held.
        """
        known = transitions["observation" if self.see_key else "state"]
        held = np.asarray(known, np.int64) // self._num_cells  # before the step
        cells = np.asarray(transitions["next_observation"], np.int64) % self._num_cells
        paid = np.asarray(transitions["reward"]) > 0
        pays = np.stack(self._task_cells(tasks))[:, None] == np.arange(self._num_cells)[:, None]
        ends = paid & (held > 0) & self.success_ends
        agrees = np.asarray(transitions["terminated"]) == ends
        return (pays[held, cells] == paid[..., None]) & agrees[..., None]

    def frames(self, task, transitions: dict[str, np.ndarray]) -> np.ndarray:
        """Draw one episode seen from above, uint8 [T + 1, H, W, 3]; see `envs.render`."""
        cells = np.append(transitions["observation"], transitions["next_observation"][-1])
        total = np.append(0, np.cumsum(transitions["reward"]))  # the return so far
        keys, doors = self._task_cells([task])
        return key_door_frames(
            self.shape, cells.astype(np.int64) % self._num_cells, keys[0], doors[0], total > 0
        )

    def _begin(self, envs):
        starts = self.start_cells()
        random = len(starts) > 1
        self._cells[envs] = starts[(self._random(envs) * len(starts)).astype(int) if random else 0]
        self._held[envs] = False

    def _outcome(self, envs, previous, actions, cells):
        held = self._held[envs]
        takes = ~held & (cells == self._key_cells[envs])
        opens = held & (cells == self._door_cells[envs])
        self._held[envs] = held | takes
        return (takes | opens).astype(np.float32), opens & self.success_ends

    def _observation(self):
        return self._state_index() if self.see_key else self._cells.copy()

    def _state_index(self) -> np.ndarray:
        return self._held * self._num_cells + self._cells

    def _draw(self, env):
        places = self._key_cells[env], self._door_cells[env]
        return key_door_frames(self.shape, self._cells[[env]], *places, self._held[[env]])[0]

    def _task_cells(self, tasks) -> tuple[np.ndarray, np.ndarray]:
        """Return the cells of keys and doors, int64 [K] each; ValueError for no such task."""
        places = check_tasks(tasks, 4)
        rows, columns = self.shape
        outside = (places < 0) | (places >= [rows, columns, rows, columns])
        for task in places[outside.any(axis=1)].tolist():
            raise ValueError(
                f"the key or the door of task {task} is outside the {rows} x {columns} room"
            )
        keys, doors = places[:, :2] @ [columns, 1], places[:, 2:] @ [columns, 1]
        for task in places[keys == doors].tolist():
            raise ValueError(f"the key of task {task} lies where its door is")
        return keys, doors

    def _steps(self, cells, goals) -> np.ndarray:
        """Return the fewest steps until a step ends on `goals`, which may broadcast, int64.

        It is the distance from `cells`, or 1 on the goal itself, where staying ends on it.
        """
        return np.maximum(self._distance(cells, goals), 1)

    def _random_walk(self, tasks, episode_length: int) -> tuple[np.ndarray, ...]:
        """Return expectations over an episode of uniformly random actions, float [K] each.

        They are the probability of reaching the key, that of reaching the door with it, and the
        expected rewards of the door.
        """
        keys, doors = self._task_cells(tasks)
        goals, index = np.unique([keys, doors], return_inverse=True)
        key_index, door_index = index.reshape(2, -1)
        starts = self.start_cells()
        to_key = [first[starts].mean(0) for first in self._first_arrivals(goals, episode_length)]
        reached, paid = np.zeros((2, len(keys)))
        arrived = np.zeros((self._num_cells, len(goals)))  # P(g is reached from c within n steps)
        walk = np.eye(self._num_cells)[:, goals]  # P(at g after n steps from c)
        visits = np.zeros_like(walk)  # expected steps that end on g, of n steps from c
        for n, first in enumerate(self._first_arrivals(goals, episode_length - 1), start=1):
            arrived += first
            walk = walk[self._table].mean(1)
            visits += walk
            when = to_key[episode_length - n - 1][key_index]  # P(key reached with n steps left)
            reached += when * arrived[keys, door_index]
            paid += when * (arrived if self.success_ends else visits)[keys, door_index]
        return sum(to_key)[key_index], reached, paid

    def _first_arrivals(self, goals: np.ndarray, steps: int) -> Iterator[np.ndarray]:
        """Yield, for n = 1 .. `steps`, P(step n of a random walk from c is the first to end on g).

        goals: the cells g, int64 [G]. Each result is float [S, G], by c and the number of g.
        """
        first = (self._table[:, :, None] == goals).mean(1)
        for _ in range(steps):
            yield first
            later = first.copy()
            later[goals, np.arange(len(goals))] = 0  # a walk that is on g has arrived
            first = later[self._table].mean(1)
