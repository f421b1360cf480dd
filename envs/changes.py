"""Tasks that change: environments that move to another task between two episodes, by a schedule.

A schedule is a pure function of a rate, a key for each environment and the tasks that it may move
to (`Changes.tasks`): what comes when depends neither on the other environments nor on what is
played, and can be computed again from a few numbers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from gymnasium.vector import VectorWrapper

from envs.checks import check_seeds
from envs.rng import uniform

if TYPE_CHECKING:
    from envs.world import World

MOST_EPISODES = 2**53  # between two changes
FIRST_EPISODES = 64  # of each environment whose tasks are computed at first; then twice as many


def rate_problem(rate: float) -> str | None:
    """Return what is wrong with the rate of a schedule, None for nothing."""
    if not 0 <= rate <= MOST_EPISODES or (rate > 1 and rate != int(rate)):
        return f"must be 0, a probability, or a whole number of episodes, not {rate:g}"


@dataclass(frozen=True, eq=False)
class Changes:
    """When the tasks of N environments change, and to which.

    rate: 0 for never; a whole number n >= 1 for a change after every n episodes; below 1, the
    probability of a change at the end of an episode. keys: N 64-bit keys; environments with equal
    keys, pools and first tasks have equal sequences. pools: for each environment the tasks,
    int [P, D], all different, that it moves between, its first one among them; a change leads to
    any of the P - 1 others with equal probability. Raises ValueError for a bad rate, for a pool of
    one task or with equal tasks, and unless there are as many pools as keys.
    """

    rate: float
    keys: Sequence[int]
    pools: Sequence[np.ndarray]

    def __post_init__(self):
        if problem := rate_problem(self.rate):
            raise ValueError(f"the rate {problem}")
        if len(self.keys) != len(self.pools):
            raise ValueError(f"{len(self.keys)} keys are not those of {len(self.pools)} pools")
        if min(map(len, self.pools)) < 2:
            raise ValueError("a task cannot change where its part of the split has no other one")
        for pool in self.distinct_pools():
            if np.ndim(pool) != 2 or len(np.unique(pool, axis=0)) < len(pool):
                raise ValueError("a pool must be a table of tasks that are all different")

    def distinct_pools(self) -> list[np.ndarray]:
        """Return each array of `pools` once."""
        return list({id(pool): pool for pool in self.pools}.values())

    def places(self, first: np.ndarray, episodes: int) -> np.ndarray:
        """Return the index into its pool of each environment's task by episode, int64 [N, E].

        first: the tasks of the first episodes, int [N, D]. Raises ValueError for a task that is not
        in its pool.
        """
        keys, counters = np.array(self.keys, np.uint64)[:, None], np.arange(episodes)
        sizes = np.array([len(pool) for pool in self.pools])[:, None]
        is_first = [(pool == task).all(1) for pool, task in zip(self.pools, first, strict=True)]
        if not all(places.any() for places in is_first):
            raise ValueError("a task that changes must be one of those that it changes to")
        changed = (
            uniform(keys, 2 * counters) < self.rate
            if self.rate < 1
            else np.broadcast_to(counters % int(self.rate) == 0, (len(keys), episodes))
        )
        # From 1 to P - 1 places on: each of the other tasks with equal probability.
        moves = changed * (1 + (uniform(keys, 2 * counters + 1) * (sizes - 1)).astype(int))
        moves[:, 0] = [places.argmax() for places in is_first]
        return moves.cumsum(1) % sizes

    def tasks(self, first: np.ndarray, episodes: int) -> np.ndarray:
        """Return the tasks of the first E = `episodes` episodes of each environment, [N, E, D]."""
        places = self.places(first, episodes)
        return np.stack([pool[own] for pool, own in zip(self.pools, places, strict=True)])


class ChangingTasks(VectorWrapper):
    """N environments of a World whose tasks change by `changes` when an episode begins.

    The tasks of `world` are those of the first episodes. A world has its tasks for good. So where
    some change, `new_world(tasks=tasks)` takes over the state of the present one: `unwrapped` is
    then the new world. A reset with a seed restarts the schedule of its environments.
    """

    env: "World"  # ty: ignore[incompatible-mutable-override] one that keeps its state in arrays

    def __init__(self, world: "World", new_world: Callable[..., "World"], changes: Changes):
        super().__init__(world)
        # A space has random numbers of its own, which must not start again with each change.
        self.observation_space, self.action_space = world.observation_space, world.action_space
        self._new_world, self._changes, self._first = new_world, changes, world.tasks
        self._tasks = changes.tasks(world.tasks, FIRST_EPISODES)  # [N, E, D]
        self._episode = np.zeros(self.num_envs, np.int64)  # of each environment

    def reset(self, *, seed=None, options: dict | None = None):
        """Begin an episode as `World.reset` does, in the tasks of the schedule."""
        mask = self.env.reset_mask(options)
        check_seeds(seed, self.num_envs)
        seeds = np.broadcast_to(np.array(seed, object), mask.shape)
        restarts = [one is not None or not self.env.is_reset for one in seeds]
        self._enter(np.where(mask, np.where(restarts, 0, self._episode + 1), self._episode))
        return self.env.reset(seed=seed, options=options)

    def step(self, actions, active: np.ndarray | None = None):
        """Step the environments as `World.step` does."""
        return self.env.step(actions, active)

    def check_masks(self, actions: np.ndarray, envs: np.ndarray) -> None:
        """Refuse the actions that the present tasks do not have, as `World.check_masks` does."""
        self.env.check_masks(actions, envs)

    def state(self) -> dict:
        """Return the state of the world and the number of each environment's episode, int [N]."""
        return {"episode": self._episode.copy(), "world": self.env.state()}

    def restore(self, state: dict) -> None:
        """Set the state to one returned by `state`."""
        self._enter(state["episode"].copy())
        self.env.restore(state["world"])

    def _enter(self, episode: np.ndarray) -> None:
        """Let the environments have the tasks of their episodes, int [N], and keep their state."""
        if episode.max() >= self._tasks.shape[1]:
            self._tasks = self._changes.tasks(self._first, 2 * int(episode.max()))
        tasks = self._tasks[np.arange(self.num_envs), episode]
        if not np.array_equal(tasks, self.env.tasks):
            world = self._new_world(tasks=tasks)
            if self.env.is_reset:
                world.restore(self.env.state())
            self.env = world
        self._episode = episode
