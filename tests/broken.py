"""Components that break one rule of their contract each."""

import numpy as np
import torch
from components import Averages, Totals, Uniform
from torch import nn
from worlds import Silent

from ad.methods.algorithm_distillation import AlgorithmDistillation
from ad.methods.context_policy import ContextPolicy
from ad.methods.contexts import SlidingWindow
from ad.models.encoders.table import TableEncoder


class Unseeded(Silent):
    """A world whose rewards are random numbers that no seed decides."""

    def _advance(self, actions, envs):
        rewards, terminated = super()._advance(actions, envs)
        return rewards + np.float32(np.random.default_rng().random()), terminated


class Neighbors(Silent):
    """A world whose rewards depend on how many environments are stepped."""

    def _advance(self, actions, envs):
        rewards, terminated = super()._advance(actions, envs)
        return rewards * np.float32(len(actions)), terminated


class Optimist(Silent):
    """A world whose optimal return is below that of random actions."""

    def optimal_return(self, tasks, episode_length):
        return np.full(len(tasks), 0.1)

    def random_return(self, tasks, episode_length):
        return np.full(len(tasks), 0.5)


class Drawn(Uniform):
    """A source that draws actions from a generator of its own."""

    def run(self, steps):
        rng = np.random.default_rng()
        for chunk in self.actors.chunks(steps):
            self.actors.fill(chunk, lambda observations, u: rng.integers(2, size=u.shape))
            yield chunk


class Untrained(TableEncoder):
    """An encoder with a parameter that nothing uses."""

    def __init__(self, part, width):
        super().__init__(part, width)
        self.unused = nn.Parameter(torch.zeros(3))


class Forgets(Averages):
    """A memory whose cache forgets what came before."""

    def forward(self, tokens, cache=None):
        return super().forward(tokens, None if cache is None else Totals())


class Padded(AlgorithmDistillation):
    """A method whose loss counts rewards where the window holds nothing."""

    def loss(self, model, batch):
        loss, numbers = super().loss(model, batch)
        return loss + batch["observation"].float().mean(), numbers


class Mixing(AlgorithmDistillation):
    """A method whose policy adds the mean over all environments to the logits of each."""

    def policy(self, model, num_envs, context_length, settings):
        class Policy(ContextPolicy):
            def act(self, observation, time):
                logits = super().act(observation, time)
                return logits + torch.arange(logits.shape[1]) * len(logits)

        return Policy(model, SlidingWindow(model, num_envs, context_length))


class Crashing(AlgorithmDistillation):
    """A method whose loss raises what a typing error raises."""

    def loss(self, model, batch):
        return batch["rewards"]
