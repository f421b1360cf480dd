"""The spaces and rewards that a model is built for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from envs.spaces import Array, Discrete, Part, observation_parts

if TYPE_CHECKING:
    from envs.oracle import TaskOracle

MAX_REWARDS = 64  # distinct rewards that are kept as a list; more are a range
REACHED = 0.9  # quantile of a task's returns that its histories count as having reached
OBSERVATIONS = ("observation", "next_observation")  # roles of an observation in a transition


@dataclass(frozen=True)
class Spec:
    """The spaces of a world and the rewards of its histories; it names no task.

    `observation` holds the parts by name, "" for an undivided observation. `num_actions` is the
    largest number of actions of a task. `rewards` lists the distinct rewards, ascending; it is
    empty if there are more than MAX_REWARDS, and `reward_range` holds the lowest and the highest.
    `return_range` holds the lowest and the highest return of an episode of the histories,
    `reached_return` the mean over tasks of the return that a tenth of the episodes reach: the
    highest one is the luck of an episode, or of the task that pays most.
    """

    observation: dict[str, Part]
    num_actions: int
    rewards: tuple[float, ...]
    reward_range: tuple[float, float]
    episode_length: int  # env steps
    return_range: tuple[float, float] = (0.0, 0.0)
    reached_return: float = 0.0

    @property
    def observation_fields(self) -> dict[str, Part]:
        """The parts of both roles by the name of their field: `observation-image`."""
        return {
            field_name(role, name): part
            for role in OBSERVATIONS
            for name, part in self.observation.items()
        }

    @property
    def padding(self) -> dict[str, float]:
        """For each field of a window, the value that stands before the first transition."""
        padding = {name: part.padding for name, part in self.observation_fields.items()}
        return padding | {"action": self.num_actions, "reward": np.nan, "time": 0}


def field_name(role: str, part: str) -> str:
    """Return the field of a part of an observation: "observation", or "observation-image"."""
    return f"{role}-{part}" if part else role


def make_spec(
    world: "TaskOracle",
    episode_length: int,
    rewards: np.ndarray,
    returns: Sequence[Sequence[float] | np.ndarray] = (),
) -> Spec:
    """Return the spec of `world`, a vector environment.

    `rewards` are all rewards of its histories, `returns` the returns of the episodes of each task.
    """
    values = np.unique(rewards)
    played = [own for own in returns if len(own)] or [[0.0]]
    return Spec(
        observation=observation_parts(world),
        num_actions=world.num_actions,
        rewards=tuple(values.tolist()) if len(values) <= MAX_REWARDS else (),
        reward_range=(float(min(values, default=0)), float(max(values, default=0))),
        episode_length=episode_length,
        return_range=(float(min(map(np.min, played))), float(max(map(np.max, played)))),
        reached_return=float(np.mean([np.quantile(own, REACHED) for own in played])),
    )


def spec_from_dict(value: dict) -> Spec:
    """Return the spec that `dataclasses.asdict` made `value` of, also after a way through JSON."""
    parts = {}
    for name, part in value["observation"].items():
        kind, shape = (Discrete, "factors") if "n" in part else (Array, "shape")
        own: dict = {**part, shape: tuple(part[shape])}
        parts[name] = kind(**own)
    names = ("rewards", "reward_range", "return_range")
    tuples: dict = {name: tuple(value[name]) for name in names if name in value}
    whole: dict = {**value, **tuples, "observation": parts}
    return Spec(**whole)
