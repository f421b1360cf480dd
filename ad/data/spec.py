"""The sizes of a world that a model is built for."""

from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class Spec:
    """Sizes of a world's spaces and the rewards of its histories; it names no task."""

    num_observations: int
    observation_factors: tuple[int, ...]
    num_actions: int
    rewards: tuple[float, ...]  # the entries of the reward table, ascending
    episode_length: int  # env steps

    @property
    def padding_index(self) -> dict[str, int]:
        """For each field of a window, the index that stands before the first transition."""
        return {
            "observation": self.num_observations,
            "action": self.num_actions,
            "reward": len(self.rewards),
            "next_observation": self.num_observations,
            "time": 0,
        }


def make_spec(world, episode_length: int, rewards: np.ndarray) -> Spec:
    """Return the sizes of `world`, a vector environment, with the `rewards` of its histories."""
    return Spec(
        num_observations=int(world.single_observation_space.n),
        observation_factors=tuple(int(factor) for factor in world.observation_factors),
        num_actions=int(world.single_action_space.n),
        rewards=tuple(float(reward) for reward in rewards),
        episode_length=episode_length,
    )


def spec_as_dict(spec: Spec) -> dict:
    """Return `spec` in plain types, for a checkpoint."""
    return asdict(spec)


def spec_from_dict(value: dict) -> Spec:
    """Return the spec that `spec_as_dict` made `value` of."""
    tuples = {name: tuple(value[name]) for name in ("observation_factors", "rewards")}
    return Spec(**{**value, **tuples})
