"""The base class of families of tabular MDPs, whose facts are computed by dynamic programming.

A new family is a subclass with its name, `family`, and with the hook `models`, which draws the MDPs
of tasks from their keys. A task is an index below `num_tasks`; its MDP depends on the family's
name, `family_seed`, the task and the settings, but not on `num_tasks`.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from gymnasium.spaces import Discrete

from envs.checks import MAX_SEED, check_indices, check_integer, check_number
from envs.mdps import planning
from envs.mdps.drawing import ring_frames
from envs.rng import derive_key, normal
from envs.world import World

MAX_STATES, MAX_ACTIONS, MAX_TASKS = 128, 32, 100_000
BLOCK_BYTES = 2**25  # of the transition probabilities for which values are computed together


@dataclass(frozen=True)
class Model:
    """The MDPs of K tasks.

    transitions: probabilities of the next states, float64 [K, S, A, S]
    rewards: mean reward of each state and action, float64 [K, S, A]
    terminal: states that end an episode when they are entered, bool [K, S]
    starts: the state in which episodes begin, int64 [K]
    """

    transitions: np.ndarray
    rewards: np.ndarray
    terminal: np.ndarray
    starts: np.ndarray

    @property
    def continuing(self) -> np.ndarray:
        """The transitions to states that are not terminal, as `envs.mdps.planning` takes them."""
        return self.transitions * ~self.terminal[:, None, None]


class TabularMDP(World):
    """N environments of a family of tabular MDPs; a task is [index], environment i has `tasks[i]`.

    An observation is the index of the state. A reward is the mean reward of the state and the
    action plus a normal number with the standard deviation `reward_noise`. Raises ValueError for a
    bad setting or task.
    """

    metadata = World.metadata | {"render_modes": ["rgb_array"], "render_fps": 4}
    state_names: ClassVar[tuple[str, ...]] = ("_states",)
    family: ClassVar[str]
    drawn_by: ClassVar[tuple[str, ...]] = ("family_seed", "num_states", "num_actions")  # settings
    discount: ClassVar[float] = 0.95  # of `optimal_policy`

    def __init__(
        self,
        num_envs: int | None = None,
        tasks=None,
        num_states: int = 10,
        num_actions: int = 5,
        num_tasks: int = 500,
        family_seed: int = 0,
        reward_noise: float = 0.0,
        render_mode: str | None = None,
    ):
        self.num_states = check_integer("num_states", num_states, 2, MAX_STATES)
        self.num_actions = check_integer("num_actions", num_actions, 1, MAX_ACTIONS)
        self.num_tasks = check_integer("num_tasks", num_tasks, 1, MAX_TASKS)
        self.family_seed = check_integer("family_seed", family_seed, 0, MAX_SEED)
        self.reward_noise = check_number("reward_noise", reward_noise, 0, 1e3)
        super().__init__(num_envs, tasks, Discrete(num_states), Discrete(num_actions), render_mode)
        self._index(self.tasks)
        self._states = np.zeros(self.num_envs, np.int64)

    @abstractmethod
    def models(self, tasks: np.ndarray) -> Model:
        """Draw the MDPs of `tasks`, int64 [K], by their keys."""
        raise NotImplementedError

    def all_tasks(self) -> np.ndarray:
        """Return all tasks, [[0], [1], ...], int64 [K, 1]."""
        return np.arange(self.num_tasks)[:, None]

    def relative_tasks(self, tasks) -> np.ndarray:
        """Return `tasks` with a number before them that stands for what they are drawn by, [K, 2].

        Noise is not among it: rewards have the same means with any noise.
        """
        settings = [str(getattr(self, name)) for name in self.drawn_by]
        return np.insert(np.asarray(tasks), 0, derive_key(*settings) >> 1, axis=1)

    def optimal_return(self, tasks, episode_length: int | None) -> np.ndarray | None:
        """Return the best expected return of `episode_length` steps in each task, float [K].

        It is that of the best policy among those that may depend on the time. None without a limit.
        """
        if episode_length is None:
            return None
        return self._of_starts(tasks, planning.optimal_values, episode_length)

    def random_return(self, tasks, episode_length: int | None) -> np.ndarray | None:
        """Return the expected return of uniformly random actions in each task, float [K].

        None without a limit of steps.
        """
        if episode_length is None:
            return None
        policy = np.full(self.num_actions, 1 / self.num_actions)
        return self._of_starts(tasks, planning.policy_values, policy, episode_length)

    def optimal_policy(self, tasks) -> np.ndarray:
        """Return the probabilities of the best policy for discounted rewards, float64 [K, S, A].

        It is stationary and maximizes the rewards of an endless episode that are discounted by
        `discount`. Within a time limit the best action may depend on the time, so this policy may
        attain less than `optimal_return`; a test holds it to 98 percent of that on random MDPs of
        10 steps. Equally good actions have equal probability.
        """
        policies = [
            planning.greedy_policy(
                planning.discounted_values(model.continuing, model.rewards, self.discount)
            )
            for model in self._blocks(tasks)
        ]
        return np.concatenate(policies)

    def frames(self, task, transitions: dict[str, np.ndarray]) -> np.ndarray:
        """Draw one episode, uint8 [T + 1, H, W, 3]; see `envs.mdps.drawing`."""
        states = np.append(transitions["observation"], transitions["next_observation"][-1])
        rewards = np.append(0.0, transitions["reward"])
        terminal = self.models(self._index([task])).terminal[0]
        return ring_frames(states.astype(np.int64), rewards, terminal)

    def keys(self, tasks: np.ndarray, *purpose: int | str) -> np.ndarray:
        """Derive the keys of `tasks`, int64 [K], for a purpose: uint64 [K]."""
        words = [(self.family, self.family_seed, task, *purpose) for task in tasks.tolist()]
        return np.array([derive_key(*each) for each in words], np.uint64)

    def _begin(self, envs):
        self._states[envs] = self._model.starts[self._row[envs]]

    def _advance(self, actions, envs):
        row = self._row[envs]
        pair = row, self._states[envs], actions
        rewards, cumulative = self._model.rewards[pair], self._cumulative[pair]
        following = (self._random(envs)[:, None] >= cumulative[:, :-1]).sum(1)
        if self.reward_noise:
            noise = normal(self._random(envs), self._random(envs))
            rewards = rewards + self.reward_noise * noise
        self._states[envs] = following
        return rewards.astype(np.float32), self._model.terminal[row, following]

    def _observation(self):
        return self._states.copy()

    def _draw(self, env):
        terminal = self._model.terminal[self._row[env]]
        return ring_frames(self._states[[env]], np.zeros(1), terminal)[0]  # no reward is kept

    @cached_property
    def _own_tasks(self) -> tuple[np.ndarray, np.ndarray]:
        """The different tasks of the environments, int64 [M], and each environment's index, [N]."""
        return np.unique(self._index(self.tasks), return_inverse=True)

    @property
    def _row(self) -> np.ndarray:
        """The index of each environment's task in `_model`, int64 [N]."""
        return self._own_tasks[1]

    @cached_property
    def _model(self) -> Model:
        """The MDPs of the environments' different tasks, drawn at the first reset."""
        return self.models(self._own_tasks[0])

    @cached_property
    def _cumulative(self) -> np.ndarray:
        """The cumulative transition probabilities, exactly 1 from the last possible state on."""
        sums = self._model.transitions.cumsum(-1)
        return sums / sums[..., -1:]

    def _of_starts(self, tasks, values: Callable[..., np.ndarray], *arguments) -> np.ndarray:
        """Return what `values` has for the start of each task, float [K]."""
        found = [
            values(model.continuing, model.rewards, *arguments)[
                np.arange(len(model.starts)), model.starts
            ]
            for model in self._blocks(tasks)
        ]
        return np.concatenate(found)

    def _blocks(self, tasks) -> Iterator[Model]:
        """Yield the MDPs of `tasks`, some at a time, so that their tables fit the memory.

        Without tasks there is one block, of no MDPs.
        """
        index = self._index(tasks)
        size = max(BLOCK_BYTES // (8 * self.num_states**2 * self.num_actions), 1)
        for start in range(0, max(len(index), 1), size):
            yield self.models(index[start : start + size])

    def _index(self, tasks) -> np.ndarray:
        """Return tasks as indices, int64 [K]; ValueError for one that does not exist."""
        return check_indices(tasks, self.num_tasks)
