"""Posterior sampling for reinforcement learning, PSRL (Strens 2000; Osband et al. 2013).

An agent has a prior over tabular MDPs: the outcomes of each state and action have probabilities
from a Dirichlet distribution, and their mean reward is normal, with normal noise of known variance.
When an episode begins it samples an MDP from its posterior and follows that MDP's optimal policy
for the rest of the episode (Osband et al. 2013, section 3). A life is one actor.

With several `samples` it is OPSRL, optimistic PSRL (Osband and Van Roy 2017, "Why is posterior
sampling better than optimism for reinforcement learning?"): the value of an action is the largest
that it has in the MDPs sampled for the episode.

A termination is an outcome with no prior weight: the agent expects it where it has seen it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional

import numpy as np

from ad.config.fields import field
from ad.config.schema import Experiment
from ad.data.schema import TransitionChunk
from ad.errors import SettingError
from ad.sources.actors import Actors, actor_keys
from ad.sources.base import TabularSource
from envs.mdps.planning import action_values
from envs.oracle import TaskOracle
from envs.rng import normal, uniform

DEFAULTS = {"concentration": 1.0, "reward_mean": 1.0, "reward_sd": 1.0, "reward_noise": 1.0}
LEAST_NOISE = 1e-3  # standard deviation of noise that is reckoned with where there is none
BLOCK = 1 << 20  # transition probabilities, or action values, that are in memory together
COUNTERS = 1 << 44  # counters of one attempt at a gamma number; attempts have their own
MAX_BYTES = 4 * 2**30  # of the counts and sums of all lives


@dataclass(frozen=True)
class Settings:
    """Settings of PSRL. A world may know the prior from which its tasks are drawn."""

    concentration: Optional[float] = field(None, at_least=0.05, at_most=1e6)  # noqa: UP045
    """Dirichlet parameter of each next state; null: the value of the world's prior, or 1"""
    reward_mean: Optional[float] = field(None, at_least=-1e6, at_most=1e6)  # noqa: UP045
    """prior mean of mean rewards; null: the value of the world's prior, or 1"""
    reward_sd: Optional[float] = field(None, above=0, at_most=1e6)  # noqa: UP045
    """prior standard deviation of mean rewards; null: the value of the world's prior, or 1"""
    reward_noise: Optional[float] = field(None, at_least=0, at_most=1e6)  # noqa: UP045
    """known standard deviation of rewards around their mean; null: the value of the world, or 1"""
    samples: int = field(1, at_least=1, at_most=1000, added=True)
    """MDPs sampled for each episode; with more than one, an action has its largest value in them"""


class PSRL(TabularSource):
    """K agents with N lives each, in worlds whose observations have numbers."""

    Settings = Settings
    privileged_info = "family"
    paper = "arXiv 1306.0940"
    state_names = ("counts", "reward_sums", "policy", "episodes")

    @classmethod
    def check(cls, config: Experiment, world: TaskOracle) -> None:
        """Raise SettingError for other observations, and for tables that would not fit memory."""
        super().check(config, world)
        states, actions = world.num_observations, world.num_actions
        assert states is not None  # as `super().check` has said
        each = states * actions * (4 * (states + 1) + 8)  # bytes: int32 counts, float64 sums
        each += 2 * states * config.env.episode_length  # the policy, int16
        num_bytes = config.split.num_train_tasks * config.source.num_envs * each
        if num_bytes > MAX_BYTES:
            text = f"would make psrl count outcomes in {num_bytes / 1e9:.1f} GB, too many"
            raise SettingError("source.num_envs", text)

    def __init__(self, settings: Settings, env, tasks, num_envs: int, keys):
        world = env.unwrapped
        chosen = {name: getattr(settings, name) for name in DEFAULTS}
        given = {name: value for name, value in chosen.items() if value is not None}
        self.prior, self.samples = DEFAULTS | world.prior() | given, settings.samples
        self.horizon = min(env.episode_length, world.max_episode_steps or env.episode_length)
        self.actors = Actors(env, len(tasks), num_envs, keys)
        self.keys = {
            purpose: actor_keys(keys, num_envs, purpose) for purpose in ("transitions", "rewards")
        }
        self.actor = np.arange(len(tasks) * num_envs)
        states, actions = world.num_observations, int(env.single_action_space.n)
        pairs = len(self.actor), states, actions
        self.counts = np.zeros((*pairs, states + 1), np.int32)  # the last outcome: termination
        self.reward_sums = np.zeros(pairs)
        self.policy = np.zeros((len(self.actor), self.horizon, states), np.int16)
        self.episodes = np.zeros(len(self.actor), np.int64)  # for which an MDP was sampled
        self._plan(self.actor)

    def act(self, observations: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Return the actions [K, N] that are best in the MDPs sampled for the episodes."""
        return self.policy[self.actor, self.actors.time, observations.ravel()].reshape(u.shape)

    def _learn(self, rollout: TransitionChunk) -> None:
        """Count the outcomes of a step; plan where an episode begins."""
        step = {name: values.ravel() for name, values in rollout.arrays.items()}  # [K * N]
        pair = self.actor, step["observation"], step["action"]
        end = self.counts.shape[-1] - 1
        self.counts[(*pair, np.where(step["terminated"], end, step["next_observation"]))] += 1
        self.reward_sums[pair] += step["reward"]
        self._plan(np.flatnonzero(step["terminated"] | step["truncated"]))

    def _statistics(self) -> dict[str, np.ndarray]:
        """Return the share of tried pairs, as the mean over actors, float32 [K]."""
        tried = (self.counts.sum(-1) > 0).mean((1, 2)).reshape(self.actors.shape)
        return {"tried_pairs": tried.mean(1).astype(np.float32)}

    def _plan(self, lives: np.ndarray) -> None:
        """Sample MDPs for each of `lives`, int [M], and find the best actions in them."""
        largest = max(self.counts[0].size, self.horizon * self.reward_sums[0].size)
        size = max(BLOCK // largest, 1)
        for start in range(0, len(lives), size):
            block = lives[start : start + size]
            best = list(self._sample_values(block, 0))
            for sample in range(1, self.samples):
                for values, largest in zip(self._sample_values(block, sample), best, strict=True):
                    np.maximum(largest, values, out=largest)
            for to_go, values in enumerate(best, 1):
                self.policy[block, self.horizon - to_go] = values.argmax(-1)
        self.episodes[lives] += 1

    def _sample_values(self, lives: np.ndarray, sample: int) -> Iterator[np.ndarray]:
        """Yield the action values in MDP number `sample`, [M, S, A], with 1, 2, ... steps to go."""
        transitions = self._sample_transitions(lives, sample)[..., :-1]  # without terminations
        mask = self.actors.action_mask[lives // self.actors.shape[1]]
        rewards = np.where(mask[:, None], self._sample_rewards(lives, sample), -np.inf)
        return action_values(transitions, rewards, self.horizon)

    def _sample_transitions(self, lives: np.ndarray, sample: int = 0) -> np.ndarray:
        """Sample the probabilities of the outcomes from the posterior, [M, S, A, S + 1]."""
        prior = np.full(self.counts.shape[-1], self.prior["concentration"])
        prior[-1] = 0  # a termination
        shapes = prior + self.counts[lives]
        keys = self.keys["transitions"][lives].reshape(-1, 1, 1, 1)
        weights = standard_gamma(keys, self._counters(lives, shapes.shape[1:], sample), shapes)
        return weights / weights.sum(-1, keepdims=True)

    def _sample_rewards(self, lives: np.ndarray, sample: int = 0) -> np.ndarray:
        """Sample the mean rewards from the posterior, [M, S, A].

        With n rewards of noise σ and the prior N(m, τ²) the posterior is normal with the precision
        1 / τ² + n / σ² and with the mean (m / τ² + sum of rewards / σ²) / precision.
        """
        noise = max(self.prior["reward_noise"], LEAST_NOISE) ** -2.0
        weight = self.prior["reward_sd"] ** -2.0
        precision = weight + noise * self.counts[lives].sum(-1)
        total = weight * self.prior["reward_mean"] + noise * self.reward_sums[lives]
        counters = 2 * self._counters(lives, precision.shape[1:], sample)
        keys = self.keys["rewards"][lives].reshape(-1, 1, 1)
        draws = normal(uniform(keys, counters), uniform(keys, counters + np.uint64(1)))
        return total / precision + draws / np.sqrt(precision)

    def _counters(self, lives: np.ndarray, shape: tuple[int, ...], sample: int) -> np.ndarray:
        """Return a counter for each number of `shape` in one MDP of each life, uint64."""
        numbers = np.arange(np.prod(shape), dtype=np.uint64).reshape(shape)
        mdp = self.episodes[lives] * self.samples + sample  # of all that a life samples
        first = mdp.astype(np.uint64) * np.uint64(numbers.size)
        return first.reshape(-1, *[1] * len(shape)) + numbers


def standard_gamma(keys: np.ndarray, counters: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """Draw gamma numbers of scale 1, float64, of the broadcast shape of the three arguments.

    shapes: the shape parameters, at least 0; that of 0 gives 0. counters: integers below 2^42.
    Marsaglia and Tsang 2000, "A simple method for generating gamma variables"; for shapes below 1
    section 6.
    """
    keys, counters, shapes = np.broadcast_arrays(keys, counters, shapes)
    flat_keys = np.ascontiguousarray(keys).reshape(-1)
    first = 4 * np.ascontiguousarray(counters, np.uint64).reshape(-1)
    wanted = np.ascontiguousarray(shapes, np.float64).reshape(-1)
    drawn = _at_least_one(flat_keys, first, np.where(wanted < 1, wanted + 1, wanted))
    small = np.flatnonzero((wanted > 0) & (wanted < 1))
    u = 1 - uniform(flat_keys[small], first[small] + np.uint64(3))
    drawn[small] *= u ** (1 / wanted[small])
    return np.where(wanted > 0, drawn, 0.0).reshape(shapes.shape)


def _at_least_one(keys: np.ndarray, first: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """Draw gamma numbers with shape parameters of at least 1, float64 [M], by rejection."""
    d = shapes - 1 / 3
    c = 1 / np.sqrt(9 * d)
    drawn, pending, attempt = np.zeros(len(shapes)), np.arange(len(shapes)), 0
    while len(pending):
        counters = first[pending] + np.uint64(attempt * COUNTERS)
        u, v, w = (uniform(keys[pending], counters + np.uint64(k)) for k in range(3))
        x = normal(u, v)
        cube = (1 + c[pending] * x) ** 3
        is_positive = cube > 0
        log = np.log(np.where(is_positive, cube, 1))
        accepted = np.log1p(-w) < x**2 / 2 + d[pending] * (1 - cube + log)
        accepted &= is_positive
        drawn[pending[accepted]] = (d[pending] * cube)[accepted]
        pending = pending[~accepted]
        attempt += 1
    return drawn
