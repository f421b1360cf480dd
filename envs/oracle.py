"""Facts about the tasks of a world. Every fact is optional: None, or {}, means unknown."""

from abc import abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import EllipsisType

import numpy as np
from gymnasium.error import InvalidAction
from gymnasium.spaces import Discrete, Space


@dataclass(frozen=True)
class Reference:
    """Expected `returns` and `successes` of each task and episode, float [K, E], NaN for unknown.

    p_success: the probability of a success by the end of each episode, [K, E]; None for unknown.
    tasks: indices [K] into the tasks of the split, or ... for all of them.
    """

    returns: np.ndarray
    successes: np.ndarray
    p_success: np.ndarray | None = None
    tasks: np.ndarray | EllipsisType = ...


def p_success_by(successes: np.ndarray, episodes: int) -> np.ndarray:
    """Return the probability of a success by the end of each episode, [K, E], E = `episodes`.

    successes: float [K], the probability of a success in each episode before the first success;
    the episodes are independent.
    """
    return 1 - (1 - successes[:, None]) ** np.arange(1, episodes + 1)


def constant_reference(returns: np.ndarray, successes: np.ndarray, episodes: int) -> Reference:
    """Return the reference of an agent that does not learn, over `episodes` independent episodes.

    returns, successes: float [K], the expected return and success of each episode of a task.
    """
    ones, p_success = np.ones(episodes), p_success_by(successes, episodes)
    return Reference(returns[:, None] * ones, successes[:, None] * ones, p_success)


class TaskOracle:
    """The facts about the tasks of a world; the methods take any of its tasks, int [K, D].

    A world has `all_tasks` and overrides the methods whose facts it knows. S is the number of its
    states, A that of its actions. `episode_length` is the limit in env steps. No method changes the
    state of the environments, and several threads may call them at once.

    task_noun: what a task is called in reports, e.g. "goal".
    numbering: a name for what the numbers of observations stand for, where that may differ between
    worlds of equal spaces, else None. A model is evaluated where the numbering is that of training.
    action_names: what the actions are called, in their order; empty if they have no names, or other
    ones in each task. A task with fewer actions has the first of them.
    task_grid: the (rows, columns) of the grid whose cells are the tasks, for maps; None if a task
    is not a cell.
    max_episode_steps: the env steps after which the world itself truncates an episode, None for
    never.
    life: the env steps of a rollout that the facts are means over, None if any number is.
    success_ends: whether a success ends the episode, so that its length is that of the path.
    pays_once: whether only the first success of an episode pays.
    observation_factors: the shape for `np.unravel_index(observation, observation_factors)` if an
    observation is the index of a cell, else None.
    reward_distribution: how the rewards of an action in a state are distributed: "bernoulli", 0 or
    1; "normal", with the standard deviation `reward_noise` everywhere; None for any other way.
    reward_noise: the standard deviation of the normal noise of rewards, None if there is none.
    can_be_stepped: whether there are environments to act in; False for a world that only has
    recorded histories, on which a model can be trained but not evaluated.
    can_render: whether `replay` draws episodes, where `frames` cannot.
    observes_view: whether pictures of cells are the agent's own view, which looks up in them.
    things: what `put(thing, x, y)` puts into a cell of the grid, empty if grids cannot be edited.
    """

    tasks: np.ndarray
    single_observation_space: Space
    single_action_space: Space
    task_noun: str = "task"
    numbering: str | None = None
    life: int | None = None
    action_names: tuple[str, ...] = ()
    task_grid: tuple[int, int] | None = None
    max_episode_steps: int | None = None
    success_ends: bool = False
    pays_once: bool = False
    observation_factors: tuple[int, ...] | None = None
    reward_distribution: str | None = None
    reward_noise: float | None = None
    can_be_stepped: bool = True
    can_render: bool = False
    observes_view: bool = False
    things: tuple[str, ...] = ()

    @cached_property
    def num_actions(self) -> int:
        """The largest number A of actions of a task."""
        assert isinstance(self.single_action_space, Discrete)  # as `check_action_space` has said
        return int(self.single_action_space.n)

    @cached_property
    def _masks(self) -> np.ndarray | None:
        """The actions of each environment's task, bool [N, A]; None if each task has all."""
        return self.action_mask(self.tasks)

    def check_masks(self, actions: np.ndarray, envs: np.ndarray | slice) -> None:
        """Raise InvalidAction if one of `envs` gets an action that its task does not have."""
        if self._masks is None:
            return
        allowed = self._masks[np.arange(len(actions)), actions][envs]
        if not allowed.all():
            wrong = actions[envs][~allowed].tolist()
            raise InvalidAction(f"the tasks of these environments do not have the actions {wrong}")

    @abstractmethod
    def all_tasks(self) -> np.ndarray:
        """Return all tasks of the world, int64 [K, D]: D numbers name a task."""
        raise NotImplementedError

    def held_out_tasks(self) -> np.ndarray | None:
        """Return the tasks that the world's definition holds out, int64 [m, D].

        No split trains on one of them. None if a split may hold out any tasks.
        """
        return None

    def names(self, tasks) -> list[str]:
        """Return what each of `tasks` is called in reports: by default its numbers, "(3, 7)"."""
        return [f"({', '.join(map(str, task))})" for task in np.asarray(tasks).tolist()]

    def relative_tasks(self, tasks) -> np.ndarray:
        """Return names of `tasks` that are equal for the same task under other settings, [K, D]."""
        return np.asarray(tasks)

    @cached_property
    def num_observations(self) -> int | None:
        """How many different observations there are, of which each has a number; None: unknown."""
        space = self.single_observation_space
        return int(space.n) if isinstance(space, Discrete) else None

    def number_observations(self, observations: np.ndarray) -> np.ndarray:
        """Return the numbers [...] of `observations`, which have any leading shape [...]."""
        return observations

    def optimal_return(self, tasks, episode_length: int) -> np.ndarray | None:
        """Return the best possible expected return of an episode of each task, float [K]."""
        return None

    def random_return(self, tasks, episode_length: int) -> np.ndarray | None:
        """Return the expected return of uniformly random actions in each task, float [K]."""
        return None

    def shortest_episode(self, tasks) -> np.ndarray | None:
        """Return the fewest env steps to a success in each task, float [K]."""
        return None

    def steps_to_success(self, tasks) -> np.ndarray | None:
        """Return the fewest env steps to a success from each state, float [K, S]."""
        return None

    def success(self, returns: np.ndarray) -> np.ndarray | None:
        """Return whether episodes with these returns, of any shape, are successes: bool."""
        return None

    def action_mask(self, tasks) -> np.ndarray | None:
        """Return which actions each task has, bool [K, A].

        None if every task of the world has all actions.
        """
        return None

    def optimal_policy(self, tasks) -> np.ndarray | None:
        """Return the action probabilities of an optimal policy by state, float64 [K, S, A]."""
        return None

    def states(self) -> np.ndarray | None:
        """Return the index of each environment's present state in `optimal_policy`, int64 [N].

        None if the observation is the state.
        """
        return None

    def prior(self) -> dict[str, float]:
        """Return the known parameters of the distribution that tabular tasks are drawn from.

        Each parameter is left out if the world does not know it or draws from another kind of
        distribution. concentration: that of the symmetric Dirichlet distribution of the next state,
        for each state and action; reward_mean, reward_sd: mean and standard deviation of the normal
        distribution of mean rewards; reward_noise: standard deviation of the normal noise of a
        reward.
        """
        return {} if self.reward_noise is None else {"reward_noise": self.reward_noise}

    def possible(self, transitions: dict[str, np.ndarray], tasks) -> np.ndarray | None:
        """Return which tasks each transition is consistent with, bool [..., K].

        Only for deterministic families. None, also for no transitions, if the observations do not
        tell. `transitions` has an array [...] for each field:
        observation, action, reward, next_observation, terminated and time, and if the world has
        `states()`, state: the index of the state before the step. A caller leaves out what an
        agent sees once a single task is left: a reward that is paid once would not come again.
        """
        return None

    def references(self, tasks, episode_length: int, episodes: int) -> dict[str, Reference]:
        """Return the learning curves of other agents over E = `episodes` episodes, by name."""
        return {}

    def frames(self, task, transitions: dict[str, np.ndarray]) -> np.ndarray | None:
        """Draw one episode of `task`, int [D], as frames, uint8 [T + 1, H, W, 3].

        `transitions` has an array [T] for each recorded field, among them observation, action,
        reward and next_observation. A part of an observation is a field `observation-<part>`.
        """
        return None

    def put(self, thing: str, x: int, y: int):
        """Put one of `things` into the cell (x, y), and return the observations. Only with some."""
        raise NotImplementedError

    def grid_shape(self) -> tuple[int, int]:
        """Return the (width, height) of the grid that `things` are put into."""
        raise NotImplementedError

    def draw(self) -> np.ndarray:
        """Draw the grid that `things` are put into, uint8 [H, W, 3]."""
        raise NotImplementedError

    def replay(
        self, task, seed: int, episodes: Sequence[tuple[np.ndarray, float]], chosen: Collection[int]
    ) -> dict[int, np.ndarray]:
        """Play the episodes of `task` again from `seed`, and return frames of the `chosen` ones.

        `episodes` has the actions, int [T], and the return of each episode since the reset with
        `seed`. Frames, by the number of the episode, are uint8 [T + 1, H, W, 3]. Raises ValueError
        if the episodes become others. Only if `can_render`.
        """
        raise NotImplementedError


def knows_its_state(world) -> bool:
    """Return whether `states()` or an undivided discrete observation is the state of `world`."""
    has_states = type(world).states is not TaskOracle.states
    return has_states or isinstance(world.single_observation_space, Discrete)
