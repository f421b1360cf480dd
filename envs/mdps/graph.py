"""Graph MDPs: walks on random strongly connected directed graphs with one node that pays.

The family is deterministic, so a transition refutes the tasks that disagree with it. Its definition
is this suite's own.
"""

from functools import cached_property

import numpy as np

from envs.mdps.draws import uniforms
from envs.mdps.tabular import Model, TabularMDP


class GraphMDP(TabularMDP):
    """N walks on directed graphs; a task is [index]. An episode is meant to last 24 steps.

    The nodes are the states, and an action takes one of a node's outgoing edges. One edge of each
    node, that of a random action, leads to the next node on a cycle through all nodes in a random
    order, so that the graph is strongly connected. Each other edge leads to any node but its own,
    all equally likely. The reward is 1 for each step that enters the goal, a node that is drawn
    among all but node 0, else 0. Every episode begins in node 0; it goes on after a reward, and
    only the time limit ends it.
    """

    family = "GraphMDP-v0"

    def __init__(
        self,
        num_envs: int | None = None,
        tasks=None,
        num_states: int = 16,
        num_actions: int = 4,
        num_tasks: int = 500,
        family_seed: int = 0,
        render_mode: str | None = None,
    ):
        super().__init__(
            num_envs,
            tasks,
            num_states,
            num_actions,
            num_tasks,
            family_seed,
            render_mode=render_mode,
        )

    def models(self, tasks: np.ndarray) -> Model:
        """Return the MDPs of `tasks`, int64 [K]."""
        successors, goals = (facts[tasks] for facts in self._graphs)
        return Model(
            np.eye(self.num_states)[successors],
            (successors == goals[:, None, None]).astype(float),
            np.zeros((len(tasks), self.num_states), bool),
            np.zeros(len(tasks), np.int64),
        )

    def successors(self, tasks) -> np.ndarray:
        """Return the next state of each state and action, int64 [K, S, A]."""
        return self._graphs[0][self._index(tasks)]

    def possible(self, transitions: dict[str, np.ndarray], tasks) -> np.ndarray:
        """Return which tasks agree with the next state and the reward, bool [..., K]."""
        index = self._index(tasks)
        successors, goals = (facts[index] for facts in self._graphs)
        seen = {name: np.asarray(values) for name, values in transitions.items()}
        following = seen["next_observation"][..., None]
        expected = np.moveaxis(successors[:, seen["observation"], seen["action"]], 0, -1)
        return (expected == following) & (seen["reward"][..., None] == (following == goals))

    @cached_property
    def _graphs(self) -> tuple[np.ndarray, np.ndarray]:
        """The successors, int64 [K, S, A], and the goals, int64 [K], of all tasks."""
        tasks, (states, actions) = self.all_tasks()[:, 0], (self.num_states, self.num_actions)
        other = (uniforms(self.keys(tasks, "edges"), (states, actions)) * (states - 1)).astype(int)
        own = np.arange(states)[:, None]
        successors = other + (other >= own)
        order = np.argsort(uniforms(self.keys(tasks, "cycle"), (states,)), axis=-1)
        u = uniforms(self.keys(tasks, "action on the cycle"), (states,))
        action = (u * actions).astype(int)
        rows = np.arange(len(tasks))[:, None]
        successors[rows, order, action] = np.roll(order, -1, axis=1)
        goals = 1 + (uniforms(self.keys(tasks, "goal"), ()) * (states - 1)).astype(int)
        return successors, goals
