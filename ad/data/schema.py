"""The fields of a recorded transition, and the chunks in which sources hand them to the store."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ad.data.spec import OBSERVATIONS, field_name
from envs.spaces import observation_parts

# The kinds of the dtypes of all fields but the observations.
KINDS = {"action": "u", "reward": "f", "terminated": "b", "truncated": "b", "time": "u"}
STORED = {*OBSERVATIONS, *KINDS}  # with all parts of an observation under one name


class Field(NamedTuple):
    """A field of a transition: its dtype in the store, and the shape of a value."""

    dtype: np.dtype
    shape: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        """The bytes of a value."""
        return self.dtype.itemsize * int(np.prod(self.shape))


Fields = dict[str, Field]


def transition_fields(world) -> Fields:
    """Return the fields of the transitions of `world`, in dtypes that hold all their values.

    Raises ValueError for a space that cannot be stored.
    """
    parts = observation_parts(world)

    def observation(role: str) -> Fields:
        return {
            field_name(role, name): Field(np.dtype(part.dtype), part.shape)
            for name, part in parts.items()
        }

    return {
        **observation("observation"),
        "action": Field(np.min_scalar_type(int(world.single_action_space.n) - 1)),
        "reward": Field(np.dtype(np.float32)),
        **observation("next_observation"),
        "terminated": Field(np.dtype(np.bool_)),
        "truncated": Field(np.dtype(np.bool_)),
        "time": Field(np.dtype(np.uint16)),
    }


@dataclass
class TransitionChunk:
    """Transitions of K tasks and N actors each: arrays [T, K, N, ...] by field.

    `statistics` holds the learner's by name: a list with an array [K] for each update.
    `checkpoints` holds files of its policies by the env steps of an agent: the bytes of K files.
    """

    arrays: dict[str, np.ndarray]
    statistics: dict[str, list] = field(default_factory=dict)
    checkpoints: dict[int, list[bytes]] = field(default_factory=dict)

    @classmethod
    def empty(cls, fields: Fields, steps: int, num_tasks: int, num_envs: int) -> "TransitionChunk":
        """Return an uninitialized chunk of T = `steps` transitions of K tasks and N actors."""
        shape = (steps, num_tasks, num_envs)
        return cls({name: np.empty((*shape, *f.shape), f.dtype) for name, f in fields.items()})

    def __len__(self) -> int:
        return len(self.arrays["action"])

    def rollouts(self, length: int) -> Iterator["TransitionChunk"]:
        """Yield views of `length` steps each, with the same statistics; the last may be shorter."""
        for start in range(0, len(self), length):
            views = {name: array[start : start + length] for name, array in self.arrays.items()}
            yield TransitionChunk(views, self.statistics)
