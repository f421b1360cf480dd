"""The schema of a transition and the block in which sources hand transitions to the store.

A history may also hold the probabilities of all A actions at each decision, in 8 bits each: levels
that add up to 255. They are the differences of the rounded running sums, so that a certain action
has all 255, an impossible one none, and every other is less than 1/255 off.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

FIELDS = {
    "observation": np.uint16,
    "action": np.uint8,
    "reward": np.float32,
    "next_observation": np.uint16,
    "terminated": np.bool_,
    "truncated": np.bool_,
    "time": np.uint16,
}
PROBABILITIES = "probabilities"  # the field that a history may have: uint8 [..., A]
LEVELS = 255  # what the probabilities of one decision add up to


def quantised(cumulative: np.ndarray) -> np.ndarray:
    """Levels uint8 [..., A] of probabilities whose running sums are `cumulative` [..., A]."""
    edges = np.rint(cumulative * LEVELS)
    edges[..., -1] = LEVELS
    return np.diff(edges, axis=-1, prepend=0).astype(np.uint8)


def schema(num_actions: int = 0) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Type and shape behind [streams, T] of each field; with A > 0 also of the probabilities."""
    soft = {PROBABILITIES: (np.dtype(np.uint8), (num_actions,))} if num_actions else {}
    return {name: (np.dtype(dtype), ()) for name, dtype in FIELDS.items()} | soft


@dataclass
class Block:
    """Transitions [T, K, E] by field, and the learner's statistics: name -> list of [K] arrays.

    The field of probabilities, where there is one, is [T, K, E, A].
    """

    arrays: dict[str, np.ndarray]
    statistics: dict[str, list] = field(default_factory=dict)

    @classmethod
    def empty(cls, steps: int, num_tasks: int, num_envs: int, num_actions: int = 0) -> "Block":
        """A block of T = `steps` transitions of K tasks and E actors, to be filled.

        With A = `num_actions` above 0 it has their probabilities too.
        """
        shape = (steps, num_tasks, num_envs)
        wanted = schema(num_actions).items()
        return cls({name: np.empty(shape + rest, dtype) for name, (dtype, rest) in wanted})

    def __len__(self) -> int:
        return len(self.arrays["action"])

    def rollouts(self, length: int) -> Iterator["Block"]:
        """Views of `length` steps each (the last may be shorter), with the same statistics."""
        for start in range(0, len(self), length):
            part = {name: array[start : start + length] for name, array in self.arrays.items()}
            yield Block(part, self.statistics)
