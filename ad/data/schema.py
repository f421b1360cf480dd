"""The fields of a recorded transition, and the chunks in which sources hand them to the store."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ad.errors import ConfigError

FIELDS = {
    "observation": np.uint16,
    "action": np.uint8,
    "reward": np.float32,
    "next_observation": np.uint16,
    "terminated": np.bool_,
    "truncated": np.bool_,
    "time": np.uint16,
}


def check_sizes(num_observations: int, num_actions: int) -> None:
    """Raise ConfigError unless the dtypes of `FIELDS` can store all observations and actions."""
    for name, count in (("observation", num_observations), ("action", num_actions)):
        limit = np.iinfo(FIELDS[name]).max + 1
        if count > limit:
            raise ConfigError(
                f"the world has {count:,} {name}s, but a history stores at most {limit:,}"
            )


@dataclass
class TransitionChunk:
    """Transitions of K tasks and N actors each: arrays [T, K, N] by field.

    `statistics` holds the learner's by name: a list with an array [K] for each update.
    """

    arrays: dict[str, np.ndarray]
    statistics: dict[str, list] = field(default_factory=dict)

    @classmethod
    def empty(cls, steps: int, num_tasks: int, num_envs: int) -> "TransitionChunk":
        """Return an uninitialized chunk of T = `steps` transitions of K tasks and N actors."""
        shape = (steps, num_tasks, num_envs)
        return cls({name: np.empty(shape, dtype) for name, dtype in FIELDS.items()})

    def __len__(self) -> int:
        return len(self.arrays["action"])

    def rollouts(self, length: int) -> Iterator["TransitionChunk"]:
        """Yield views of `length` steps each, with the same statistics; the last may be shorter."""
        for start in range(0, len(self), length):
            views = {name: array[start : start + length] for name, array in self.arrays.items()}
            yield TransitionChunk(views, self.statistics)
