"""Garnets: random MDPs with few successors for each state and action.

Archibald, McKinnon and Thomas 1995, "On the generation of Markov decision processes".
"""

import numpy as np

from envs.checks import check_integer
from envs.mdps.draws import normals, sparse_transitions
from envs.mdps.tabular import Model, TabularMDP


class Garnet(TabularMDP):
    """N Garnets; a task is [index].

    Each state and action has `branching` different successors, each set of them equally likely.
    Their probabilities are the lengths into which uniform cuts divide the unit interval. Mean
    rewards are standard normal; a reward adds normal noise of standard deviation `reward_noise`.
    Every episode begins in state 0, and only the time limit ends it.
    """

    family = "Garnet-v0"
    drawn_by = (*TabularMDP.drawn_by, "branching")

    def __init__(
        self,
        num_envs: int | None = None,
        tasks=None,
        num_states: int = 16,
        branching: int = 2,
        reward_noise: float = 0.1,
        **kwargs,
    ):
        super().__init__(
            num_envs, tasks, num_states=num_states, reward_noise=reward_noise, **kwargs
        )
        self.branching = check_integer("branching", branching, 1, num_states)

    def prior(self) -> dict[str, float]:
        """Return the prior of the rewards; next states have no Dirichlet prior over all states."""
        return {**super().prior(), "reward_mean": 0.0, "reward_sd": 1.0}

    def models(self, tasks: np.ndarray) -> Model:
        """Draw the MDPs of `tasks`, int64 [K], by their keys."""
        states, actions = self.num_states, self.num_actions
        set_keys, weight_keys = self.keys(tasks, "successors"), self.keys(tasks, "transitions")
        allowed = np.ones((states, states), bool)
        return Model(
            sparse_transitions(set_keys, weight_keys, allowed, actions, self.branching),
            normals(self.keys(tasks, "rewards"), (states, actions)),
            np.zeros((len(tasks), states), bool),
            np.zeros(len(tasks), np.int64),
        )
