"""What agents other than the model would reach: the lines that a learning curve is read against.

A reference is an expected return and success per task and episode [K, E], computed, not sampled,
from what a world knows about itself. They hold for worlds in which a task is an observation to find
(the goal), and the reward is 1 for each step that ends there; elsewhere there are none.

- random: uniform actions, for ever.
- undirected: random until the goal is first hit, perfect ever after: the ceiling of what can be
  learned from a source that explores without direction, as A2C does.
- explorer: sweeps cells not seen before until it meets the goal, perfect ever after: a practical
  ceiling for any agent (`ad.evaluation.explorer`).
- optimal: knows the goal.
- source: the source algorithm's own first episodes, from its histories; source_end: its last ones.
"""

from dataclasses import dataclass
from types import EllipsisType

import numpy as np

from ad.evaluation.explorer import sweep_paths


@dataclass(frozen=True)
class Reference:
    """Expected `returns` and `successes` of each task and episode, float [K, E].

    `tasks`: which tasks of the split its rows are about.
    """

    returns: np.ndarray
    successes: np.ndarray
    tasks: np.ndarray | EllipsisType = ...  # all


def references(world, tasks, episode_length: int, episodes: int) -> dict[str, Reference]:
    """The references that `world` (of `envs.world`) knows enough for, by name, over `episodes`.

    tasks int [K, D]. Missing: all of them where optimal returns are unknown (foreign worlds), the
    explorer with random starts or in a room too large to search.
    """
    search = _search(world, np.asarray(tasks), episode_length)
    if search is None:
        return {}
    sweep = explorer(search, episodes)
    return {
        "random": _constant(*random(search), episodes),
        "undirected": undirected(search, episodes),
        **({"explorer": sweep} if sweep else {}),
        "optimal": _constant(search.optimal, search.reachable, episodes),
    }


def random_return(world, tasks, episode_length: int) -> np.ndarray:
    """Expected return of uniform actions in each task, float [K]; NaN where it is unknown."""
    search = _search(world, np.asarray(tasks), episode_length)
    return np.full(len(tasks), np.nan) if search is None else random(search)[0]


def source_references(
    returns: list[list[np.ndarray]], episodes: int, last: int
) -> dict[str, Reference]:
    """The source algorithm's first `episodes` and its `last` ones, means over streams.

    `returns[k][j]` are the returns of the episodes of task k, stream j. Streams differ in how many
    they hold; the curve stops where the shortest one does, since later on it would show only agents
    that already finish quickly.
    """
    shortest = min(len(stream) for streams in returns for stream in streams)
    parts = {"source": slice(min(episodes, shortest)), "source_end": slice(-last, None)}
    if shortest < last:
        return {}
    cut = {
        name: np.array([[stream[part] for stream in streams] for streams in returns])
        for name, part in parts.items()
    }  # [K, streams, E]
    return {name: Reference(r.mean(1), (r > 0).mean(1)) for name, r in cut.items()}


@dataclass(frozen=True)
class GoalSearch:
    """The problem of finding a goal: what the references below need of a world and its tasks.

    successors int [S, A]; starts int [starts]; goals int [K]; start_weights float [K, starts], how
    likely each start is; optimal, reachable float [K], of an agent that knows the goal.
    """

    successors: np.ndarray
    starts: np.ndarray
    goals: np.ndarray
    start_weights: np.ndarray
    episode_length: int
    goal_ends: bool
    optimal: np.ndarray
    reachable: np.ndarray

    def worth(self) -> np.ndarray:
        """What arriving pays an agent that then stays, by steps left, float [episode_length]."""
        left = np.arange(1, self.episode_length + 1)
        return np.ones(len(left)) if self.goal_ends else left.astype(float)


def random(search: GoalSearch) -> tuple[np.ndarray, np.ndarray]:
    """Expected return and success of uniform actions, float [K] each, exactly."""
    once = np.ones(search.episode_length)
    returns = _random_walk(search, once, arrival_ends=search.goal_ends)
    success = _random_walk(search, once, arrival_ends=True)
    return _over_starts(search, returns), _over_starts(search, success)


def undirected(search: GoalSearch, episodes: int) -> Reference:
    """Uniform actions until the goal is first hit, a shortest path to it ever after, exactly."""
    hit = _over_starts(search, _random_walk(search, np.ones(search.episode_length), True))
    first = _over_starts(search, _random_walk(search, search.worth(), True))
    unknown = (1 - hit[:, None]) ** np.arange(episodes)  # [K, E]: not found before the episode
    return Reference(
        unknown * first[:, None] + (1 - unknown) * search.optimal[:, None],
        unknown * hit[:, None] + (1 - unknown) * search.reachable[:, None],
    )


def explorer(search: GoalSearch, episodes: int) -> Reference | None:
    """Sweeps unseen cells until it meets the goal, a shortest path to it ever after.

    None with random starts (its sweeps would depend on them) or in a room too large to search.
    """
    if len(search.starts) > 1:
        return None
    paths = sweep_paths(search.successors, int(search.starts[0]), search.episode_length, episodes)
    if paths is None:
        return None
    returns = np.zeros((len(search.goals), episodes))
    for k, goal in enumerate(search.goals):
        visits = [np.flatnonzero(path == goal) for path in paths]
        episode = next((e for e, steps in enumerate(visits) if len(steps)), episodes)
        if episode < episodes:
            returns[k, episode] = search.worth()[-visits[episode][0]]  # arrives at step 1, 2, ...
            returns[k, episode + 1 :] = search.optimal[k]
    return Reference(returns, (returns > 0).astype(float))


def _search(world, tasks: np.ndarray, episode_length: int) -> GoalSearch | None:
    """The problem that `world` poses; None where a task is no observation to find."""
    if not all(
        hasattr(world, n) for n in ("successors", "start_observations", "terminate_on_goal")
    ):
        return None
    goals = np.ravel_multi_index(tuple(tasks.T), world.observation_factors)
    starts = world.start_observations()
    possible = starts != goals[:, None]  # none starts on its goal
    weights = possible / possible.sum(1, keepdims=True)
    optimal = world.optimal_return(tasks, episode_length)
    parts = (world.successors(), starts, goals, weights, episode_length, world.terminate_on_goal)
    blind = GoalSearch(*parts, optimal, np.zeros(len(goals)))
    within = _random_walk(blind, np.ones(episode_length), arrival_ends=True) > 0
    return GoalSearch(*parts, optimal, _over_starts(blind, within))


def _random_walk(search: GoalSearch, worth: np.ndarray, arrival_ends: bool) -> np.ndarray:
    """Expected total of a uniformly random walk from each observation, float [K, S].

    Arriving on the goal with n steps left (this one counts) pays `worth[n - 1]`, and ends the walk
    if `arrival_ends`. By recursion over the steps left: v_n(s) = mean over a of gain + v_{n-1}(s').
    """
    total = np.zeros((len(search.goals), len(search.successors)))
    goal = (np.arange(len(search.goals)), search.goals)
    for pay in worth:
        arrival = total.copy()  # of stepping on to each observation
        arrival[goal] = pay if arrival_ends else pay + total[goal]
        total = np.mean([arrival[:, after] for after in search.successors.T], axis=0)
    return total


def _over_starts(search: GoalSearch, values: np.ndarray) -> np.ndarray:
    """The mean of `values` [K, S] over where episodes start: [K]."""
    return (values[:, search.starts] * search.start_weights).sum(1)


def _constant(returns: np.ndarray, successes: np.ndarray, episodes: int) -> Reference:
    spread = np.ones(episodes)
    return Reference(returns[:, None] * spread, successes[:, None] * spread)
