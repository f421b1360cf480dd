"""Noise distillation, AD^ε (Zisman et al. 2024, section 3): learning histories without learning.

The optimal policy of a world acts, and each action is replaced by a uniformly random one with a
probability that falls linearly from `noise_start` to `noise_end` over the history.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ad.config.fields import field
from ad.data.schema import TransitionChunk
from ad.errors import ConfigError
from ad.sources.actors import Actors, actor_keys
from envs.rng import uniform


@dataclass(frozen=True)
class Settings:
    """Settings of noise distillation: the schedule of the noise."""

    noise_start: float = field(1.0, at_least=0, at_most=1)
    """probability of a random action at the first step of a history"""
    noise_end: float = field(0.0, at_least=0, at_most=1)
    """probability of a random action at the end of the decay"""
    decay_fraction: float = field(1.0, above=0, at_most=1)
    """fraction of a history in which the noise decays linearly"""


class NoiseDistillation:
    """K noisy experts with E actors each; needs a world that knows its optimal policy.

    `settings`: those of all agents, or a list of the same ones for each.
    """

    Settings = Settings
    SHARED = ("noise_start", "noise_end", "decay_fraction")  # one schedule for all agents

    def __init__(
        self, settings: Settings | Sequence[Settings], env, tasks, num_envs: int, keys, world
    ):
        if not hasattr(world, "optimal_policy"):
            raise ConfigError("noise_distillation needs a world that knows its optimal policy")
        self.settings = settings if isinstance(settings, Settings) else settings[0]
        self.actors = Actors(env, len(tasks), num_envs, keys)
        self.noise_keys = actor_keys(keys, num_envs, "noise")
        self.cumulative = world.optimal_policy(tasks).cumsum(-1)  # [K, S, A]
        self.noise = self.settings.noise_start

    def run(self, steps: int) -> Iterator[TransitionChunk]:
        """Act until every lane has taken `steps` steps; yield the transitions in blocks."""
        for block in self.actors.blocks(steps):
            for step in block.rollouts(1):
                self.noise = self._noise_at(self.actors.steps / max(steps - 1, 1))
                self.actors.rollout(step, self.act)
            block.statistics["noise"] = [np.full(self.actors.shape[0], self.noise, np.float32)]
            yield block

    def state(self) -> dict | None:
        """The actors as arrays; None if their world cannot tell."""
        return self.actors.state()

    def restore(self, state: dict) -> None:
        """Go on from what `state` of the same agents gave."""
        self.actors.restore(state)

    def act(self, observations: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Actions [K, E]: optimal ones, or with probability `noise` uniformly random ones.

        `u`, uniforms [K, E], choose among the actions; those of the stream "noise" choose between
        the two policies.
        """
        cumulative = self.cumulative[self.actors.agent, observations]  # [K, E, A]
        optimal = (u[..., None] >= cumulative[..., :-1]).sum(-1)
        is_random = uniform(self.noise_keys, self.actors.steps).reshape(u.shape) < self.noise
        return np.where(is_random, (u * cumulative.shape[-1]).astype(int), optimal)

    def _noise_at(self, progress: float) -> float:
        s = self.settings
        share = min(progress / s.decay_fraction, 1.0)
        return s.noise_start + (s.noise_end - s.noise_start) * share
