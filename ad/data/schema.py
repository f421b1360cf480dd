"""The schema of a transition and the block in which sources hand transitions to the store."""

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


@dataclass
class TransitionChunk:
    """Transitions [T, K, E] by field, and the learner's statistics: name -> list of [K] arrays."""

    arrays: dict[str, np.ndarray]
    statistics: dict[str, list] = field(default_factory=dict)

    @classmethod
    def empty(cls, steps: int, num_tasks: int, num_envs: int) -> "TransitionChunk":
        """A block of T = `steps` transitions of K tasks and E actors, to be filled."""
        shape = (steps, num_tasks, num_envs)
        return cls({name: np.empty(shape, dtype) for name, dtype in FIELDS.items()})

    def __len__(self) -> int:
        return len(self.arrays["action"])

    def rollouts(self, length: int) -> Iterator["TransitionChunk"]:
        """Views of `length` steps each (the last may be shorter), with the same statistics."""
        for start in range(0, len(self), length):
            part = {name: array[start : start + length] for name, array in self.arrays.items()}
            yield TransitionChunk(part, self.statistics)
