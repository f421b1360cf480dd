"""Structured MDPs: states in a row, which is worth walking along, with pitfalls on the way.

The family is inspired by AnyMDP (Wang et al. 2025, arXiv 2502.02869), whose definition in print is
incomplete, and shares with it: banded transitions, terminal pitfalls, a terminal goal in some
tasks, and the rejection of tasks whose optimal value does not rise. Scores do not compare with
those on AnyMDP.
"""

import numpy as np

from envs.checks import check_integer, check_number
from envs.mdps import planning
from envs.mdps.draws import sparse_transitions, uniforms
from envs.mdps.tabular import Model, TabularMDP

NUM_STARTS = 3
MOST_PITFALLS = 0.4  # the highest share of pitfalls in a task
RISE_DISCOUNT = 0.99  # of the values that must rise
LEAST_VALUE = 3.0  # of the start, so that a share of the optimum is not a share of almost nothing


class StructuredMDP(TabularMDP):
    """N structured MDPs; a task is [index].

    From state s an action leads to one of `branching` different states from s - S // 2 - 1 to
    s + S // 4 + 1 (each set of them is equally likely, and their probabilities are a draw from a
    flat Dirichlet distribution), so that random actions drift back. Every episode begins in the
    same of the first three states.

    Each other state but the last is a pitfall with a probability that a task draws from U[0, 0.4].
    With probability `goal_probability` the last state is a goal. Entering one of them ends the
    episode. With h(s) = s / (S - 1), the mean reward of an action a in state s is

        progress (E h(s') - h(s)) + height h(s) - cost(s, a) + bonus P(goal) - penalty P(pitfall)

    where each task draws progress, height and penalty from U[0, 1], bonus from U[1, 4] and each
    cost(s, a) from U[0, 0.2].

    A task is drawn again until its optimal value with discount 0.99 rises: the mean of the states
    of the second half that are not terminal is above that of the first half, and the value of the
    start is above 3.
    """

    family = "StructuredMDP-v0"
    drawn_by = (*TabularMDP.drawn_by, "branching", "goal_probability")

    def __init__(
        self,
        num_envs: int | None = None,
        tasks=None,
        num_states: int = 16,
        branching: int = 3,
        goal_probability: float = 0.3,
        reward_noise: float = 0.1,
        **kwargs,
    ):
        check_integer("num_states", num_states, 8, 128)
        super().__init__(
            num_envs, tasks, num_states=num_states, reward_noise=reward_noise, **kwargs
        )
        self.branching = check_integer("branching", branching, 2, num_states // 4 + 2)
        self.goal_probability = check_number("goal_probability", goal_probability, 0, 1)

    def models(self, tasks: np.ndarray) -> Model:
        """Draw the MDPs of `tasks`, int64 [K], by their keys, until they are accepted."""
        model, attempt = self._draw_models(tasks, 0), 0
        pending = np.flatnonzero(~_rises(model))
        while len(pending):
            attempt += 1
            drawn = self._draw_models(tasks[pending], attempt)
            for name, values in vars(drawn).items():
                getattr(model, name)[pending] = values
            pending = pending[~_rises(drawn)]
        return model

    def _draw_models(self, tasks: np.ndarray, attempt: int) -> Model:
        keys = {
            name: self.keys(tasks, name, attempt)
            for name in ("task", "pitfalls", "costs", "successors", "transitions")
        }
        states, actions = self.num_states, self.num_actions
        state = np.arange(states)
        progress, height, penalty, share, goal, bonus, start = uniforms(keys["task"], (7,)).T
        inner = (state >= NUM_STARTS) & (state < states - 1)
        pitfall = (uniforms(keys["pitfalls"], (states,)) < MOST_PITFALLS * share[:, None]) & inner
        is_goal = (state == states - 1) & (goal < self.goal_probability)[:, None]  # [K, S]
        step = state - state[:, None]
        band = (step >= -(states // 2) - 1) & (step <= states // 4 + 1)
        transitions = sparse_transitions(
            keys["successors"], keys["transitions"], band, actions, self.branching
        )
        place = state / (states - 1)
        worth = progress[:, None] * place + (1 + 3 * bonus)[:, None] * is_goal
        worth -= penalty[:, None] * pitfall  # of entering each state, [K, S]
        stay = (height - progress)[:, None, None] * place[:, None]
        costs = 0.2 * uniforms(keys["costs"], (states, actions))
        return Model(
            transitions,
            planning.expected(transitions, worth) + stay - costs,
            pitfall | is_goal,
            (start * NUM_STARTS).astype(np.int64),
        )


def _rises(model: Model) -> np.ndarray:
    """Return which MDPs are accepted, bool [K]."""
    values = planning.discounted_values(model.continuing, model.rewards, RISE_DISCOUNT).max(-1)
    alive, half = ~model.terminal, values.shape[1] // 2
    sums = [(values * alive)[:, part].sum(1) for part in (slice(half), slice(half, None))]
    counts = [alive[:, part].sum(1) for part in (slice(half), slice(half, None))]
    rises = sums[1] * counts[0] > sums[0] * counts[1]
    return rises & (values[np.arange(len(values)), model.starts] > LEAST_VALUE)
