"""Noise distillation, AD^ε (Zisman et al. 2024, section 3): learning histories without learning.

The optimal policy of a world acts, and each action is replaced by a uniformly random one with a
probability that falls linearly from `noise_start` to `noise_end` over the history. With `hold` the
draw, whether an action is random and which one, is kept for some steps: a random walk in stretches,
as Ornstein-Uhlenbeck noise is for continuous actions (Lillicrap et al. 2016).
"""

from dataclasses import dataclass

import numpy as np

from ad.config.fields import field
from ad.config.schema import Experiment
from ad.sources.actors import Actors, actor_keys
from ad.sources.base import RolloutSource, knows_optimal_policy, linear, unfit
from envs.oracle import TaskOracle
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
    hold: float = field(1.0, at_least=1)
    """steps for which a random action is held while it changes the state, on average; 1: none"""


class NoiseDistillation(RolloutSource):
    """K noisy experts with N actors each, of a world that knows its `optimal_policy`."""

    Settings = Settings
    privileged_info = "optimum"
    paper = "arXiv 2312.12275"
    state_names = ("held",)

    @classmethod
    def check(cls, config: Experiment, world: TaskOracle) -> None:
        """Raise SettingError if `world` does not know its optimal policy."""
        if not knows_optimal_policy(world):
            raise unfit(config, "it needs a world that knows its optimal policy")

    def __init__(self, settings: Settings, env, tasks, num_envs: int, keys):
        self.settings = settings
        self.actors = Actors(env, len(tasks), num_envs, keys)
        self.noise_keys = actor_keys(keys, num_envs, "noise")
        self.hold_keys = actor_keys(keys, num_envs, "hold")
        # Of each actor: the steps of its last draws, and the state of the step before.
        self.held = {
            name: np.full(len(self.noise_keys), -1) for name in ("noise", "action", "state")
        }
        self.cumulative = env.unwrapped.optimal_policy(tasks).cumsum(-1)  # [K, S, A]
        self.noise = self.settings.noise_start

    def act(self, observations: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Sample actions [K, N]: with probability `noise` uniformly random, otherwise optimal ones.

        The uniforms `u` [K, N] select an optimal action. Whether an action is random is decided by
        a number of the actor's random stream for the purpose "noise", and which one it is by a
        number of its stream for actions. Both are drawn again with probability 1 / `hold`; the
        second also when an episode begins, and where the last step left the state as it was, so
        that a walk does not lean on a wall. Nothing else changes the first, so that the probability
        of a random action is `noise` whatever the actor does.
        """
        states = self.actors.states()
        cumulative = self.cumulative[self.actors.agent, states]  # [K, N, A]
        optimal = self.actors.sample(cumulative, u)
        draws = uniform(self.hold_keys, self.actors.steps) < 1 / self.settings.hold
        draws |= self.actors.steps == 0
        self.held["noise"][draws] = self.actors.steps
        draws |= (self.actors.time == 0) | (states.ravel() == self.held["state"])
        self.held["action"][draws] = self.actors.steps
        self.held["state"] = states.flatten()
        is_random = uniform(self.noise_keys, self.held["noise"]).reshape(u.shape) < self.noise
        u_random = uniform(self.actors.keys, self.held["action"]).reshape(u.shape)
        return np.where(is_random, self.actors.uniform_actions(u_random), optimal)

    def _begin_rollout(self, progress: float) -> None:
        """Set the probability of a random action."""
        own = self.settings
        self.noise = linear(own.noise_start, own.noise_end, own.decay_fraction, progress)

    def _statistics(self) -> dict[str, np.ndarray]:
        """Return the probability of a random action, float32 [K]."""
        return {"noise": np.full(self.actors.shape[0], self.noise, np.float32)}
