"""Frozen lakes: a task is a map of ice and holes, on which Gymnasium's FrozenLake is played.

Maps come from Gymnasium's `generate_random_map`, which draws until a path leads to the goal, and
transitions from the table `P` of its `FrozenLakeEnv`. Episodes start in the upper left corner. The
goal in the lower right one has reward 1; it and the holes end the episode.
"""

from functools import cached_property, lru_cache

import numpy as np
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv, generate_random_map

from envs.checks import check_flag, check_integer, check_number
from envs.mdps.tabular import MAX_TASKS, Model, TabularMDP
from envs.oracle import Reference, constant_reference
from envs.render import room_frames

MAX_SIZE = 11  # cells along a side: a table has size ** 4 numbers for each action
SEEDS_EACH = 50  # seeds of maps that are tried for each task


@lru_cache(maxsize=16)
def different_maps(size: int, p: float, number: int) -> tuple[tuple[str, ...], ...]:
    """Return the first `number` different maps of the seeds 0, 1, ..., each a tuple of rows.

    Raises ValueError if there are fewer among SEEDS_EACH * `number` seeds.
    """
    maps = {}
    for seed in range(SEEDS_EACH * number):
        maps[tuple(generate_random_map(size, p, seed))] = seed
        if len(maps) == number:
            return tuple(maps)
    raise ValueError(
        f"num_tasks is {number}, but only {len(maps)} different maps of {size} x {size} cells were "
        f"found with p {p}"
    )


class FrozenLake(TabularMDP):
    """N frozen lakes; task [i] is the i-th different map of the seeds 0, 1, 2, ...

    size: the number of rows and of columns; p: the probability that a cell is ice, not a hole;
    is_slippery: whether a move goes in its own direction only with probability 1 / 3, and else to
    one of its two sides. An observation is the index row * size + column; actions are left, down,
    right, up. Raises ValueError for a bad setting or task.
    """

    family = "FrozenLakeMaps-v0"
    drawn_by = ("family", "size", "p", "is_slippery")
    task_noun = "map"
    action_names = ("left", "down", "right", "up")
    success_ends = True

    def __init__(
        self,
        num_envs: int | None = None,
        tasks=None,
        size: int = 4,
        p: float = 0.8,
        is_slippery: bool = True,
        num_tasks: int = 300,
        render_mode: str | None = None,
    ):
        self.size = check_integer("size", size, 2, MAX_SIZE)
        self.p = check_number("p", p, 0.4, 1)  # with fewer, maps without a path are drawn for ever
        self.is_slippery = check_flag("is_slippery", is_slippery)
        self._maps = different_maps(size, p, check_integer("num_tasks", num_tasks, 1, MAX_TASKS))
        super().__init__(num_envs, tasks, size**2, 4, num_tasks, render_mode=render_mode)

    @cached_property
    def observation_factors(self) -> tuple[int, ...] | None:
        """The shape for `np.unravel_index(observation, observation_factors)`: (rows, columns)."""
        return self._shape

    @property
    def _shape(self) -> tuple[int, int]:
        return self.size, self.size

    def names(self, tasks) -> list[str]:
        """Return the rows of each map, "SFFH/FFFF/FHFF/FFFG"."""
        return ["/".join(self._maps[index]) for index in self._index(tasks)]

    def models(self, tasks: np.ndarray) -> Model:
        """Return the MDPs of `tasks`, int64 [K], from the tables of Gymnasium's environments."""
        transitions = np.zeros((len(tasks), self.num_states, self.num_actions, self.num_states))
        rewards = np.zeros(transitions.shape[:3])
        for k, task in enumerate(tasks.tolist()):
            lake = FrozenLakeEnv(desc=list(self._maps[task]), is_slippery=self.is_slippery)
            for state, action in np.ndindex(rewards.shape[1:]):
                for probability, following, reward, _ in lake.P[state][action]:
                    transitions[k, state, action, following] += probability
                    rewards[k, state, action] += probability * reward
        return Model(transitions, rewards, self._ends[tasks], np.zeros(len(tasks), np.int64))

    def prior(self) -> dict[str, float]:
        """Return nothing: a reward is 0 or 1, and next states have no Dirichlet prior."""
        return {}

    def success(self, returns: np.ndarray) -> np.ndarray:
        """Return whether each return is above 0, so that the goal was reached."""
        return returns > 0

    def references(self, tasks, episode_length: int, episodes: int) -> dict[str, Reference]:
        """Return the curves of random actions and of the optimum, float [K, E].

        The expected return of an episode is the probability that it reaches the goal.
        """
        facts = {"random": self.random_return, "optimal": self.optimal_return}
        returns = {name: fact(tasks, episode_length) for name, fact in facts.items()}
        known = {name: own for name, own in returns.items() if own is not None}
        return {name: constant_reference(own, own, episodes) for name, own in known.items()}

    def possible(self, transitions: dict[str, np.ndarray], tasks) -> np.ndarray:
        """Return in which maps the cells that were entered end an episode or not, bool [..., K].

        On ice a move has the same probabilities in all maps, slippery or not, so nothing else shows
        maps apart.
        """
        following = np.asarray(transitions["next_observation"], np.int64)
        ends = np.moveaxis(self._ends[self._index(tasks)][:, following], 0, -1)
        return ends == np.asarray(transitions["terminated"])[..., None]

    def frames(self, task, transitions: dict[str, np.ndarray]) -> np.ndarray:
        """Draw one episode seen from above, uint8 [T + 1, H, W, 3]; see `envs.render`."""
        cells = np.append(transitions["observation"], transitions["next_observation"][-1])
        return self._frames(cells.astype(np.int64), self._index([task])[0])

    @cached_property
    def _ends(self) -> np.ndarray:
        """Whether each cell of each map is a hole or the goal, bool [num_tasks, S]."""
        cells = np.array([list("".join(rows)) for rows in self._maps])
        return np.isin(cells, ["H", "G"])

    def _advance(self, actions, envs):
        _, terminated = super()._advance(actions, envs)  # whose reward is the mean over next states
        return (self._states[envs] == self.num_states - 1).astype(np.float32), terminated

    def _draw(self, env):
        return self._frames(self._states[[env]], self.tasks[env, 0])[0]

    @property
    def _goal(self) -> tuple[int, int]:
        return self.size - 1, self.size - 1

    def _holes(self, task: int) -> list[int]:
        """Return the cells that are holes; the last cell is the goal."""
        return np.flatnonzero(self._ends[task, :-1]).tolist()

    def _frames(self, cells: np.ndarray, task: int) -> np.ndarray:
        holes = self._holes(task)
        return room_frames(self._shape, cells, self._goal, holes=holes)
