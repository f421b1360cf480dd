"""Posterior sampling over the tasks of a world (Thompson 1933; Strens 2000; Osband et al. 2013).

An agent keeps the set of tasks that are consistent with all that it has seen in its life, which is
one actor. It samples one of them and follows that task's optimal policy until the task is refuted;
then it samples again. Once a single task is left, it acts optimally. The family of tasks is given
to it, but not the present task. A small `noise` puts the agents into states that these policies
would not reach, so that a model learns what to do there (as in DART, Laskey et al. 2017).

With `every_step` and without `nearness` an action has the probability that it is optimal given all
that was seen. That is what a decision-pretrained transformer approximates (`ad.methods.dpt`). With
a `window` an agent knows no more than such a transformer reads, a context in place of its life.
"""

from dataclasses import dataclass
from typing import Optional

import numpy as np

from ad.config.fields import field
from ad.config.schema import Experiment
from ad.data.schema import STORED, TransitionChunk
from ad.errors import SettingError
from ad.sources.actors import Actors, actor_keys
from ad.sources.base import RolloutSource, knows_optimal_policy, unfit
from envs.oracle import TaskOracle
from envs.rng import uniform

MAX_POLICY_BYTES = 2**30  # of the optimal policies of all tasks


@dataclass(frozen=True)
class Settings:
    """Settings of posterior sampling."""

    nearness: float = field(1.0, at_least=0)
    """preference for tasks that succeed soon: a task has weight exp(-nearness * steps); 0: none"""
    noise: float = field(0.0, at_least=0, at_most=1)
    """probability of a random action, which shows how to return to a path after leaving it"""
    every_step: bool = field(False, added=True)
    """whether to sample a task anew at every step, and not only when the sampled one is refuted"""
    window: Optional[int] = field(None, at_least=2, added=True)  # noqa: UP045
    """newest env steps that it remembers; when full, half of them stay. null: its whole life"""


class PosteriorSampling(RolloutSource):
    """K agents with N lives each, of a world that knows its tasks and their optimal policies."""

    Settings = Settings
    privileged_info = "family"
    paper = "Strens 2000"
    state_names = ("possible", "next_possible", "sampled", "draws")

    @classmethod
    def check(cls, config: Experiment, world: TaskOracle) -> None:
        """Raise SettingError unless `world` knows its optimal policies and the possible tasks."""
        tasks = world.all_tasks()
        policy = world.optimal_policy(tasks[:1])
        if policy is None or not knows_optimal_policy(world):
            raise unfit(config, "it needs a world that knows its optimal policy")
        nothing = dict.fromkeys((*STORED, "state"), np.zeros(0, np.int64))
        if world.possible(nothing, tasks[:1]) is None:
            raise unfit(config, "it needs a world that knows which of its tasks are possible")
        num_bytes = policy.nbytes * len(tasks)
        if num_bytes > MAX_POLICY_BYTES:
            size = f"{num_bytes / 1e9:.1f} GB"
            raise unfit(config, f"it needs {size} for the optimal policies of all tasks, too many")
        window = Settings(**config.source.settings).window
        if window and window % 2:
            raise SettingError("source.settings.window", f"must be even, not {window}")
        if window and world.pays_once and not world.success_ends:
            raise unfit(config, "with a window, an episode must not go on after its only reward")

    def __init__(self, settings: Settings, env, tasks, num_envs: int, keys):
        self.settings, self.world = settings, env.unwrapped
        self.tasks = self.world.all_tasks()  # M of them
        self.actors = Actors(env, len(tasks), num_envs, keys)
        self.keys = actor_keys(keys, num_envs, "posterior")
        self.noise_keys = actor_keys(keys, num_envs, "noise")
        self.cumulative = self.world.optimal_policy(self.tasks).cumsum(-1)  # [M, S, A]
        self.weights = self._weights()  # [S, M]
        self.states = self.actors.states().ravel()  # before the last step, [K * N]
        lives = len(self.keys)  # K * N
        self.possible = np.ones((lives, len(self.tasks)), bool)
        self.next_possible = self.possible.copy()  # by the steps that stay when the window is full
        self.sampled, self.draws = np.zeros(lives, np.int64), np.zeros(lives, np.uint64)
        self._sample(np.arange(lives))

    def act(self, observations: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Sample actions [K, N] of the optimal policies of the sampled tasks, by `u` [K, N].

        With probability `noise` an action is uniformly random instead; each actor's random stream
        for the purpose "noise" decides.
        """
        self.states = self.actors.states().ravel()
        cumulative = self.cumulative[self.sampled, self.states].reshape(*u.shape, -1)  # [K, N, A]
        optimal = self.actors.sample(cumulative, u)
        if not self.settings.noise:
            return optimal
        is_random = uniform(self.noise_keys, self.actors.steps) < self.settings.noise
        return np.where(is_random.reshape(u.shape), self.actors.uniform_actions(u), optimal)

    def _learn(self, rollout: TransitionChunk) -> None:
        """Drop the tasks that a step refutes; sample another task where the sampled one is."""
        undecided = np.flatnonzero(self.next_possible.sum(1) > 1)
        arrays = rollout.arrays.items()
        seen = {name: own.reshape(-1, *own.shape[3:])[undecided] for name, own in arrays}
        seen["state"] = self.states[undecided]
        agree = self.world.possible(seen, self.tasks)
        self.possible[undecided] &= agree
        self.next_possible[undecided] &= agree
        if self.settings.window and self.actors.steps % (self.settings.window // 2) == 0:
            self.possible, self.next_possible = self.next_possible, np.ones_like(self.possible)
        again = self.settings.every_step | ~self.possible[undecided, self.sampled[undecided]]
        self._sample(undecided[again])

    def _statistics(self) -> dict[str, np.ndarray]:
        """Return the number of possible tasks, as the mean over actors, float32 [K]."""
        left = self.possible.sum(1).reshape(self.actors.shape).mean(1)
        return {"possible_tasks": left.astype(np.float32)}

    def _sample(self, lives: np.ndarray) -> None:
        """Sample a possible task for each of `lives`, int [M]."""
        weights = self.weights[self.actors.states().ravel()[lives]] * self.possible[lives]
        cumulative = weights.cumsum(1)
        u = uniform(self.keys[lives], self.draws[lives])[:, None] * cumulative[:, -1:]
        self.sampled[lives] = (u >= cumulative).sum(1)
        self.draws[lives] += np.uint64(1)

    def _weights(self) -> np.ndarray:
        """Return the weight of each task by state, [S, M]; ones if the world knows no distance."""
        steps = self.world.steps_to_success(self.tasks) if self.settings.nearness else None
        if steps is None:
            return np.ones((self.cumulative.shape[1], len(self.tasks)))
        reached = np.isfinite(steps)
        steps = np.where(reached, steps, steps.max(where=reached, initial=0) + 1)
        # A possible task needs a weight above 0, however far it is.
        return np.exp(-self.settings.nearness * (steps - steps.min(0))).clip(min=1e-300).T
