"""References of a learning curve: the returns that agents other than the model would reach.

A reference is the expected return and success of each task and episode [K, E], computed exactly
from the world's transitions rather than sampled. Worlds have references if a task is an observation
to find (the goal) and each step that ends on it has reward 1. Other worlds have none.

- random: uniform actions in all episodes.
- undirected: random until the goal is first hit, perfect ever after: the ceiling of what can be
  learned from a source that explores without direction, as A2C does.
- explorer: visits unseen cells systematically (`ad.evaluation.explorer`) until it reaches the goal,
  then takes a shortest path: a practical ceiling for any agent.
- optimal: knows the goal.
- source: the first episodes of the source agents, from their histories; source_end: the last ones.
"""

from dataclasses import dataclass, replace
from types import EllipsisType

import numpy as np

from ad.evaluation.explorer import explorer_paths


@dataclass(frozen=True)
class Reference:
    """Expected `returns` and `successes` of each task and episode, float [K, E].

    tasks: indices [K] into the tasks of the split, or ... for all of them.
    """

    returns: np.ndarray
    successes: np.ndarray
    tasks: np.ndarray | EllipsisType = ...


def compute_references(world, tasks, episode_length: int, episodes: int) -> dict[str, Reference]:
    """Compute the references of `world` (from `envs.make_base`) by name, over `episodes` episodes.

    tasks: int [K, D], where D numbers name a task. Returns {} if a task is not an observation to
    find (worlds of Gymnasium); leaves out the explorer if starts are random or the room is too
    large to search.
    """
    search = _goal_search(world, np.asarray(tasks), episode_length)
    if search is None:
        return {}
    exploring = explorer(search, episodes)
    return {
        "random": _constant(*random(search), episodes),
        "undirected": undirected(search, episodes),
        **({"explorer": exploring} if exploring else {}),
        "optimal": _constant(search.optimal, search.reachable, episodes),
    }


def random_return(world, tasks, episode_length: int) -> np.ndarray:
    """Expected return of uniform actions in each task, float [K]; NaN if it is unknown."""
    search = _goal_search(world, np.asarray(tasks), episode_length)
    return np.full(len(tasks), np.nan) if search is None else random(search)[0]


def source_references(
    returns: list[list[np.ndarray]], episodes: int, last: int
) -> dict[str, Reference]:
    """Mean returns over actors of the source's first `episodes` and its `last` episodes.

    returns[k][j]: the returns of the episodes of task k, actor j. Actors differ in their number of
    episodes. The curve stops at the smallest number, since later episodes would be only those of
    actors that already finish quickly. Returns {} if an actor has fewer than `last` episodes.
    """
    shortest = min(len(actor) for actors in returns for actor in actors)
    if shortest < last:
        return {}
    parts = {"source": slice(min(episodes, shortest)), "source_end": slice(-last, None)}
    selected = {
        name: np.array([[actor[part] for actor in actors] for actors in returns])
        for name, part in parts.items()
    }  # [K, actors, E]
    return {name: Reference(r.mean(1), (r > 0).mean(1)) for name, r in selected.items()}


@dataclass(frozen=True)
class GoalSearch:
    """Transitions, starts and goals of K tasks in which an agent has to find a goal.

    successors: int [S, A], the next observation; starts: int [number of starts]; goals: int [K].
    start_weights: float [K, number of starts], the probability of each start.
    optimal, reachable: float [K], the expected return and success of an agent that knows the goal.
    """

    successors: np.ndarray
    starts: np.ndarray
    goals: np.ndarray
    start_weights: np.ndarray
    episode_length: int
    goal_ends: bool
    optimal: np.ndarray
    reachable: np.ndarray

    def arrival_returns(self) -> np.ndarray:
        """Return of arriving on the goal and staying there, float [episode_length].

        Entry n - 1 is for arriving with n steps left, counting the step of the arrival.
        """
        steps_left = np.arange(1, self.episode_length + 1)
        return np.ones(len(steps_left)) if self.goal_ends else steps_left.astype(float)


def random(search: GoalSearch) -> tuple[np.ndarray, np.ndarray]:
    """Expected return and success of uniform actions, float [K] each."""
    ones = np.ones(search.episode_length)
    returns = _random_walk_values(search, ones, arrival_ends=search.goal_ends)
    success = _random_walk_values(search, ones, arrival_ends=True)
    return _mean_over_starts(search, returns), _mean_over_starts(search, success)


def undirected(search: GoalSearch, episodes: int) -> Reference:
    """Uniform actions until the goal is first hit, a shortest path to it ever after."""
    ones = np.ones(search.episode_length)
    hit = _mean_over_starts(search, _random_walk_values(search, ones, arrival_ends=True))
    values = _random_walk_values(search, search.arrival_returns(), arrival_ends=True)
    first = _mean_over_starts(search, values)  # return of an episode that begins without the goal
    unknown = (1 - hit[:, None]) ** np.arange(episodes)  # [K, E]: P(not hit before the episode)
    return Reference(
        unknown * first[:, None] + (1 - unknown) * search.optimal[:, None],
        unknown * hit[:, None] + (1 - unknown) * search.reachable[:, None],
    )


def explorer(search: GoalSearch, episodes: int) -> Reference | None:
    """Visit unseen cells until the goal is reached, take a shortest path to it ever after.

    None if starts are random (the paths would depend on them) or the room is too large to search.
    """
    if len(search.starts) > 1:
        return None
    paths = explorer_paths(
        search.successors, int(search.starts[0]), search.episode_length, episodes
    )
    if paths is None:
        return None
    returns = np.zeros((len(search.goals), episodes))
    for k, goal in enumerate(search.goals):
        visits = [np.flatnonzero(path == goal) for path in paths]
        episode = next((e for e, steps in enumerate(visits) if len(steps)), episodes)
        if episode < episodes:
            step = visits[episode][0]  # of the arrival, from 1
            returns[k, episode] = search.arrival_returns()[-step]
            returns[k, episode + 1 :] = search.optimal[k]
    return Reference(returns, (returns > 0).astype(float))


def _goal_search(world, tasks: np.ndarray, episode_length: int) -> GoalSearch | None:
    """Build the `GoalSearch` of `world`; None if its tasks are not observations to find."""
    needed = ("successors", "start_observations", "terminate_on_goal")
    if not all(hasattr(world, name) for name in needed):
        return None
    goals = np.ravel_multi_index(tuple(tasks.T), world.observation_factors)
    starts = world.start_observations()
    possible = starts != goals[:, None]  # no episode starts on its goal
    weights = possible / possible.sum(1, keepdims=True)
    optimal = world.optimal_return(tasks, episode_length)
    parts = (world.successors(), starts, goals, weights, episode_length, world.terminate_on_goal)
    search = GoalSearch(*parts, optimal, reachable=np.zeros(len(goals)))
    within_reach = _random_walk_values(search, np.ones(episode_length), arrival_ends=True) > 0
    return replace(search, reachable=_mean_over_starts(search, within_reach))


def _random_walk_values(search: GoalSearch, rewards: np.ndarray, arrival_ends: bool) -> np.ndarray:
    """Expected return of a uniformly random walk from each observation, float [K, S].

    Arriving on the goal with n steps left, counting the step of the arrival, has the reward
    `rewards[n - 1]`, and ends the walk if `arrival_ends`. The values follow by recursion over the
    steps left: v_n(s) = mean over a of [reward + v_{n-1}(s')].
    """
    values = np.zeros((len(search.goals), len(search.successors)))
    goal = (np.arange(len(search.goals)), search.goals)
    for reward in rewards:
        arrival = values.copy()  # value of stepping onto each observation
        arrival[goal] = reward if arrival_ends else reward + values[goal]
        values = np.mean([arrival[:, after] for after in search.successors.T], axis=0)
    return values


def _mean_over_starts(search: GoalSearch, values: np.ndarray) -> np.ndarray:
    """Mean of `values` [K, S] over the starts of episodes: [K]."""
    return (values[:, search.starts] * search.start_weights).sum(1)


def _constant(returns: np.ndarray, successes: np.ndarray, episodes: int) -> Reference:
    """Reference whose episodes all have the same `returns` and `successes` [K]."""
    ones = np.ones(episodes)
    return Reference(returns[:, None] * ones, successes[:, None] * ones)
