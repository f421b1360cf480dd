"""The search for a goal: returns that other agents would reach, computed exactly.

An agent moves from observation to observation until it stands on the goal of its task, which it
does not know. A step that ends there has reward 1: each one, or the first of an episode.
`GoalSearch.references` gives the expected return and success of each task and episode:

- random: uniform actions in all episodes.
- random_then_optimal: a uniformly random walk until the goal is first hit, a shortest path in every
  episode after that. It is one walk among many: others that remember more find the goal sooner.
- explorer: visits unseen cells systematically (`envs.grid.explorer`) until it reaches the goal,
  then takes a shortest path: the best known policy.
- ceiling: a bound on the mean over all goals, since an agent sees at most `episode_length` new
  cells an episode. No agent exceeds it, except where goals are beyond the reach of some starts, or
  hardly within it while each step pays (`GoalSearch.ceiling`).
- optimal: knows the goal.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from envs.grid.explorer import explorer_paths
from envs.oracle import Reference, constant_reference, p_success_by


@dataclass(frozen=True)
class GoalSearch:
    """Transitions, starts and goals of K tasks in which an agent has to find a goal.

    successors: int [S, A], the next observation; starts: int [number of starts], equally likely;
    goals: int [K]. goal_on_start: whether an episode may start on its goal. pays_once: whether only
    the first arrival of an episode has the reward; it may also end the episode. optimal: float [K],
    the expected return of an agent that knows the goal.
    """

    successors: np.ndarray
    starts: np.ndarray
    goals: np.ndarray
    episode_length: int
    goal_on_start: bool
    pays_once: bool
    optimal: np.ndarray
    cells_per_step = 1  # that an agent sees

    def references(self, episodes: int, num_goals: int) -> dict[str, Reference]:
        """Return the references by name; the explorer is left out if `explorer` returns None.

        num_goals: how many of the world's goals are within reach of an episode.
        """
        exploring = self.explorer(episodes)
        constants = self.constants(episodes)
        return {
            "random": constants["random"],
            "random_then_optimal": self.random_then_optimal(episodes),
            **({"explorer": exploring} if exploring else {}),
            "ceiling": self.ceiling(episodes, num_goals),
            "optimal": constants["optimal"],
        }

    def constants(self, episodes: int) -> dict[str, Reference]:
        """Return the references of agents that do not search, random and optimal."""
        return {
            "random": constant_reference(*self.random(), episodes),
            "optimal": constant_reference(self.optimal, self.reachable, episodes),
        }

    def random(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the expected return and success of uniform actions, float [K] each."""
        ones = np.ones(self.episode_length)
        returns = self._random_walk_values(ones, arrival_ends=self.pays_once)
        success = self._random_walk_values(ones, arrival_ends=True)
        return self._mean_over_starts(returns), self._mean_over_starts(success)

    def random_then_optimal(self, episodes: int) -> Reference:
        """Act uniformly until the goal is first hit, take a shortest path to it ever after."""
        ones = np.ones(self.episode_length)
        hit = self._mean_over_starts(self._random_walk_values(ones, arrival_ends=True))
        values = self._random_walk_values(self.arrival_returns(), arrival_ends=True)
        first = self._mean_over_starts(values)  # return of an episode that begins without the goal
        unknown = (1 - hit[:, None]) ** np.arange(episodes)  # [K, E]: P(not hit before the episode)
        return Reference(
            unknown * first[:, None] + (1 - unknown) * self.optimal[:, None],
            unknown * hit[:, None] + (1 - unknown) * self.reachable[:, None],
            p_success=p_success_by(hit, episodes),
        )

    def explorer(self, episodes: int) -> Reference | None:
        """Visit unseen cells until the goal is reached, take a shortest path to it ever after.

        None if starts are random (the paths would depend on them) or the room is too large to
        search.
        """
        if len(self.starts) > 1:
            return None
        start, length = int(self.starts[0]), self.episode_length
        paths = explorer_paths(self.successors, start, length, episodes, self.goal_on_start)
        if paths is None:
            return None
        returns = np.zeros((len(self.goals), episodes))
        for k, goal in enumerate(self.goals):
            visits = [np.flatnonzero(path[1:] == goal) for path in paths]
            episode = next((e for e, steps in enumerate(visits) if len(steps)), episodes)
            if episode < episodes:
                step = visits[episode][0]  # of the arrival, from 0
                returns[k, episode] = self.arrival_returns()[-1 - step]
                returns[k, episode + 1 :] = self.optimal[k]
        successes = (returns > 0).astype(float)
        return Reference(returns, successes, p_success=successes)

    def ceiling(self, episodes: int, num_goals: int) -> Reference:
        """Bound the mean return over `num_goals` goals of an agent that does not know its goal.

        By the end of episode e it has seen at most e * `episode_length` * `cells_per_step` cells
        and the starts of its episodes, so it has found at most that share of the goals, and an
        episode in which a goal is found is at best one that knows it. An agent finds the near goals
        first: it can exceed the bound where starts are random and some goals beyond reach, or where
        each step pays and many are hardly within it.
        """
        start_is_seen = len(self.starts) > 1 and not self.goal_on_start  # a random one is no goal
        new_cells = self.episode_length * self.cells_per_step + start_is_seen
        found = np.minimum(new_cells * np.arange(1, episodes + 1) / num_goals, 1)
        returns, successes = self.optimal[:, None] * found, self.reachable[:, None] * found
        return Reference(returns, successes, p_success=np.broadcast_to(found, returns.shape))

    def arrival_returns(self) -> np.ndarray:
        """Return of arriving on the goal and staying there, float [episode_length].

        Entry n - 1 is for arriving with n steps left, counting the step of the arrival.
        """
        steps_left = np.arange(1, self.episode_length + 1)
        return np.ones(len(steps_left)) if self.pays_once else steps_left.astype(float)

    @cached_property
    def reachable(self) -> np.ndarray:
        """The probability that the goal is within reach of the start, float [K]."""
        values = self._random_walk_values(np.ones(self.episode_length), arrival_ends=True)
        return self._mean_over_starts(values > 0)

    def _random_walk_values(self, rewards: np.ndarray, arrival_ends: bool) -> np.ndarray:
        """Return the expected return of a uniformly random walk from each observation, [K, S].

        Arriving on the goal with n steps left, counting the step of the arrival, has the reward
        `rewards[n - 1]`, and ends the walk if `arrival_ends`, as it does where later steps pay
        nothing. The values follow by recursion over the steps left: v_n(s) = mean over a of
        [reward + v_{n-1}(s')].
        """
        values = np.zeros((len(self.goals), len(self.successors)))
        goal = (np.arange(len(self.goals)), self.goals)
        for reward in rewards:
            arrival = values.copy()  # value of stepping onto each observation
            arrival[goal] = reward if arrival_ends else reward + values[goal]
            values = np.mean([arrival[:, after] for after in self.successors.T], axis=0)
        return values

    def _mean_over_starts(self, values: np.ndarray) -> np.ndarray:
        """Return the mean of `values` [K, S] over the starts of episodes, [K]."""
        possible = self.goal_on_start | (self.starts != self.goals[:, None])
        weights = possible / possible.sum(1, keepdims=True)
        return (values[:, self.starts] * weights).sum(1)
