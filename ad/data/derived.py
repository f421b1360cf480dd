"""Fields of training windows that are computed from whole sequences of transitions.

A method names the fields of its windows; those in DERIVED are not stored in a history. A method can
also bring functions of its own: `Sequences` -> an array [M, ...], an entry for each transition.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from envs.oracle import TaskOracle, knows_its_state
from envs.rng import derive_key, uniform


@dataclass(frozen=True)
class Sequences:
    """All training sequences of `task`, int [D], one after the other: M transitions.

    `arrays` holds the stored fields, [M, ...] each; `lengths` the transitions of each sequence.
    `moment`, float64 [M], is the fraction of its actor's history before each transition.
    """

    arrays: Mapping[str, np.ndarray]
    lengths: np.ndarray
    task: np.ndarray
    world: TaskOracle
    moment: np.ndarray


Derive = Callable[[Sequences], np.ndarray]


def return_to_go(sequences: Sequences) -> np.ndarray:
    """Compute the undiscounted return from each transition to its episode's end, float32 [M].

    The reward of the transition counts (Chen et al. 2021, section 3).
    """
    arrays = sequences.arrays
    stop = np.flatnonzero(arrays["terminated"] | arrays["truncated"]) + 1
    total = np.append(0.0, np.cumsum(arrays["reward"], dtype=np.float64))
    episode = np.searchsorted(stop, np.arange(len(total) - 1), side="right")
    return (total[stop][episode] - total[:-1]).astype(np.float32)


def optimal_action(sequences: Sequences) -> np.ndarray:
    """Return an optimal action of the task at each transition's observation, int64 [M].

    Of several optimal actions it is one drawn by their probabilities in the optimal policy, with a
    random number that depends on the task and the number of the transition. Only for worlds that
    `knows_optimal_actions`.
    """
    policy = sequences.world.optimal_policy(sequences.task[None])
    assert policy is not None  # a method that reads this field needs such a world
    observations = sequences.arrays["observation"]
    key = np.uint64(derive_key("optimal action", *sequences.task.tolist()))
    u = uniform(key, np.arange(len(observations)))
    cumulative = policy[0].cumsum(-1)
    cumulative = cumulative / cumulative[:, -1:]  # 1 at the end, without an error of rounding
    return (u[:, None] >= cumulative[observations, :-1]).sum(-1)


def knows_optimal_actions(world: TaskOracle) -> bool:
    """Return whether `world` can tell an optimal action by the observation."""
    is_state = world.states() is None and knows_its_state(world)
    return is_state and world.optimal_policy(world.all_tasks()[:1]) is not None


def action_mask(sequences: Sequences) -> np.ndarray:
    """Return which actions the task has, bool [M, A]."""
    mask = sequences.world.action_mask(sequences.task[None])
    if mask is None:
        mask = np.ones((1, sequences.world.num_actions), bool)
    return np.broadcast_to(mask[0], (len(sequences.arrays["action"]), mask.shape[1]))


DERIVED: dict[str, Derive] = {
    "return_to_go": return_to_go,
    "optimal_action": optimal_action,
    "action_mask": action_mask,
}
