"""Proximal policy optimization, PPO (Schulman et al. 2017): one learner per task, in one batch.

Policy and values are tables over the numbers of observations: logits of the actions, and a value.
After each rollout an agent takes several epochs of Adam steps on minibatches of it, on the loss

    mean( -min(ρ A, clip(ρ, 1 - ε, 1 + ε) A) - β H(π(·|s)) + c (A' - V(s))² )    (equations 7, 9)

where ρ is π(a|s) over its value at the rollout, A' is the generalized advantage plus the value at
the rollout, and A is the generalized advantage, normalized within a minibatch.

An agent has its own parameters, Adam state, gradient clip and random stream. Every sum is over the
samples or the parameters of one agent, in their order, so that its history has the same bits alone,
among others and with any number of threads. An agent whose gradient or step is not finite stops
learning and keeps acting with its last policy.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ad.config.fields import field
from ad.data.schema import TransitionChunk
from ad.sources.actors import IMPOSSIBLE, Actors, actor_keys
from ad.sources.base import TabularSource
from ad.sources.returns import generalized_advantages
from envs.rng import uniform

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-5  # of Adam
STATISTICS = ("entropy", "value_error", "clipped")


@dataclass(frozen=True)
class Settings:
    """Settings of PPO, tuned on 20 rooms held out by `--split.tuning true`, with source seed 100.

    With a learning rate of 0.004, between 0.002 and 0.008, an agent reaches half of the optimum a
    little sooner than one of A2C: in its second 5,000 transitions where rooms terminate (third),
    in its third where they do not (fourth). A discount of 0.95 was better than 0.99, an entropy
    coefficient of 0.01 as good as 0.03.
    """

    learning_rate: float = field(4e-3, above=0, at_most=1)
    """Adam's learning rate: a larger one makes histories that show faster learning"""
    rollout_length: int = field(20, at_least=1)
    """steps of each actor between two updates"""
    epochs: int = field(4, at_least=1)
    """passes over a rollout in an update"""
    minibatches: int = field(4, at_least=1)
    """minibatches of a pass, each with a step of Adam"""
    clip: float = field(0.2, above=0)
    """distance of the probability ratio from 1 beyond which a sample has no gradient"""
    discount: float = field(0.95, at_least=0, at_most=1)
    """discount factor gamma"""
    gae_lambda: float = field(0.95, at_least=0, at_most=1)
    """decay lambda of generalized advantage estimation; 1: returns to the end of the rollout"""
    entropy_coefficient: float = field(0.01, at_least=0)
    """weight of the entropy bonus in the loss"""
    value_coefficient: float = field(0.5, at_least=0)
    """weight of the squared value error in the loss"""
    gradient_norm: float = field(0.5, above=0)
    """largest norm of an agent's gradient: a larger gradient is clipped"""


class Samples(NamedTuple):
    """The samples of a rollout, arrays [K, M] with a row for each agent."""

    observation: np.ndarray
    action: np.ndarray
    log_probability: np.ndarray  # of the action at the rollout
    advantage: np.ndarray
    target: np.ndarray  # of the value

    def take(self, chosen: np.ndarray) -> "Samples":
        """Return the samples `chosen`, int [K, m]."""
        return Samples(*(np.take_along_axis(values, chosen, axis=1) for values in self))


class PPO(TabularSource):
    """K independent PPO agents with N actors each.

    `parameters`, float64 [K, S, A + 1], are the logits and, in the last column, the values.
    """

    Settings = Settings
    privileged_info = "nothing"
    paper = "arXiv 1707.06347"
    state_names = ("parameters", "moments", "updates", "stopped_at")

    def __init__(self, settings: Settings, env, tasks, num_envs: int, keys):
        self.settings, self.rollout_length = settings, settings.rollout_length
        self.actors = Actors(env, len(tasks), num_envs, keys)
        self.keys = actor_keys(keys, 1, "minibatch")[:, None]
        states, actions = env.unwrapped.num_observations, int(env.single_action_space.n)
        self.parameters = np.zeros((len(tasks), states, actions + 1))
        logits = np.where(self.actors.action_mask, 0, IMPOSSIBLE)
        self.parameters[:, :, :-1] = logits[:, None]
        self.moments = np.zeros((2, *self.parameters.shape))  # of Adam
        self.updates = np.zeros((), np.int64)  # steps of Adam
        self.stopped_at = np.full(len(tasks), -1)  # steps that agent k learned from, -1: all
        self._evaluate()

    def restore(self, state: dict) -> None:
        """Set the state to one returned by `state`."""
        super().restore(state)
        self._evaluate()

    def act(self, observations: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Sample actions [K, N] from the policies at `observations` with the uniforms `u`."""
        return self.actors.sample(self.cumulative[self.actors.agent, observations], u)

    def _evaluate(self) -> None:
        """Compute the tables of the present policies: `log_policy` and `cumulative`, [K, S, A]."""
        self.log_policy = log_softmax(self.parameters[..., :-1])
        self.cumulative = np.exp(self.log_policy).cumsum(-1)

    def _learn(self, rollout: TransitionChunk) -> None:
        """Take all steps of Adam on `rollout`, and add the means of their statistics."""
        samples, size = self._samples(rollout), rollout.arrays["action"][:, 0].size
        most = self.rollout_length * self.actors.shape[1]  # samples of an agent in a whole rollout
        numbers, measured = np.arange(size, dtype=np.uint64), []
        for epoch in range(self.settings.epochs):
            counter = self.actors.steps * self.settings.epochs + epoch
            u = uniform(self.keys, np.uint64(counter * most) + numbers)
            order = u.argsort(axis=1, kind="stable")  # [K, M]
            for chosen in np.array_split(order, min(self.settings.minibatches, size), axis=1):
                measured.append(self._descend(samples.take(chosen), len(rollout)))
        self._evaluate()
        for name, values in zip(STATISTICS, np.mean(measured, axis=0), strict=True):
            rollout.statistics.setdefault(name, []).append(values)

    def _samples(self, rollout: TransitionChunk) -> Samples:
        """Return the samples of `rollout`, ordered by step and actor for each agent."""
        data, agent = rollout.arrays, self.actors.agent
        observation, action = data["observation"], data["action"]
        values = self.parameters[..., -1]
        value = values[agent, observation]  # [T, K, N]
        advantage = generalized_advantages(
            data["reward"],
            data["terminated"],
            data["truncated"],
            value,
            values[agent, data["next_observation"]],
            self.settings.discount,
            self.settings.gae_lambda,
        )
        log_probability = self.log_policy[agent, observation, action]
        arrays = (observation, action, log_probability, advantage, advantage + value)
        rows = (np.swapaxes(array, 0, 1) for array in arrays)
        return Samples(*(row.reshape(len(row), -1) for row in rows))

    def _descend(self, samples: Samples, steps: int) -> np.ndarray:
        """Take a step of Adam on the loss of `samples`; return its statistics, [3, K].

        `steps` is the length of the rollout, from which an agent that stops here did not learn.
        """
        outputs = self.parameters[self.actors.agent, samples.observation]  # [K, m, A + 1]
        d_outputs, statistics = output_gradient(outputs, samples, self.settings)
        shape = self.parameters.shape
        row = self.actors.agent * shape[1] + samples.observation
        entry = row[..., None] * shape[2] + np.arange(shape[2])
        # np.bincount adds in the order of the samples, whatever the other agents are.
        gradient = np.bincount(entry.ravel(), d_outputs.ravel(), self.parameters.size)
        self._adam(gradient.reshape(shape), steps)
        return statistics

    def _adam(self, gradient: np.ndarray, steps: int) -> None:
        """Clip `gradient` [K, S, A + 1] by each agent's norm and take a step of Adam."""
        norm = np.sqrt((gradient**2).reshape(len(gradient), -1).sum(1, keepdims=True))  # [K, 1]
        gradient = gradient * np.minimum(1, self.settings.gradient_norm / (norm + 1e-6))[..., None]
        self.updates = self.updates + 1
        count = int(self.updates)  # powers of a NumPy number and of an array may differ in a bit
        first = BETA1 * self.moments[0] + (1 - BETA1) * gradient
        second = BETA2 * self.moments[1] + (1 - BETA2) * gradient**2
        root = np.sqrt(second / (1 - BETA2**count))
        rate = self.settings.learning_rate / (1 - BETA1**count)
        parameters = self.parameters - rate * first / (root + EPSILON)
        fine = np.isfinite(norm[:, 0]) & np.isfinite(parameters).all((1, 2))
        assert self.stopped_at is not None  # `__init__` has set it
        self.stopped_at[~fine & (self.stopped_at < 0)] = self.actors.steps - steps
        learns = (self.stopped_at < 0)[:, None, None]
        self.parameters = np.where(learns, parameters, self.parameters)
        self.moments = np.stack([first, second])


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return the logarithms of the probabilities of `logits` [..., A]."""
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def output_gradient(outputs: np.ndarray, samples: Samples, settings: Settings):
    """Return d loss / d `outputs` [K, m, A + 1], logits and value, and the statistics [3, K].

    The loss is the equation in the module's docstring, over the m samples of each agent. The
    statistics are the means of the entropy in nats, of the squared value error and of whether a
    sample is clipped.
    """
    log_policy, count = log_softmax(outputs[..., :-1]), samples.action.shape[1]
    policy = np.exp(log_policy)
    advantage = samples.advantage - samples.advantage.mean(1, keepdims=True)
    advantage /= advantage.std(1, keepdims=True) + 1e-8
    taken = samples.action[..., None] == np.arange(policy.shape[-1])
    log_taken = np.where(taken, log_policy, 0).sum(-1)
    ratio = np.exp(log_taken - samples.log_probability)
    clip = settings.clip
    is_clipped = np.where(advantage > 0, ratio > 1 + clip, ratio < 1 - clip)
    weight = np.where(is_clipped, 0, -advantage * ratio)  # d loss / d log π(a|s)
    entropy = -(policy * log_policy).sum(-1)
    bonus = settings.entropy_coefficient * policy * (log_policy + entropy[..., None])
    error = samples.target - outputs[..., -1]
    d_outputs = np.empty_like(outputs)
    d_outputs[..., :-1] = (weight[..., None] * (taken - policy) + bonus) / count
    d_outputs[..., -1] = -2 * settings.value_coefficient * error / count
    return d_outputs, np.stack([entropy.mean(1), (error**2).mean(1), is_clipped.mean(1)])
