"""Small random models of a method, and policies that keep their logits."""

from dataclasses import replace

import torch

from ad.config.schema import MethodConfig, ModelConfig
from ad.data.spec import Spec
from ad.methods import build_method
from ad.methods.policy import Policy
from envs.spaces import Discrete

SPEC = Spec({"": Discrete(9, (3, 3))}, 5, (0.0, 1.0), (0.0, 1.0), 6, (0.0, 1.0))
SMALL = ModelConfig(width=16, layers=2, heads=2, feed_forward=16, positions=50)


def random_model(name: str, own: dict | None = None, **settings):
    """Return the method `name` and a random model of it, with logits large enough to compare.

    own: settings of the method; the further ones are those of the model.
    """
    torch.manual_seed(0)
    method = build_method(MethodConfig(name, own or {}))
    model = method.build(SPEC, replace(SMALL, **settings)).double().eval()
    torch.nn.init.normal_(model.head.weight)
    return method, model.requires_grad_(False)


class Recorded(Policy):
    """A policy that keeps the logits of each of three environments."""

    def __init__(self, policy):
        self.policy, self.observe, self.envs = policy, policy.observe, torch.arange(3)
        self.logits = {0: [], 1: [], 2: []}

    def act(self, observation, time):
        logits = self.policy.act(observation, time)
        for env, values in zip(self.envs.tolist(), logits, strict=True):
            self.logits[env].append(values)
        return logits

    def select(self, envs):
        self.policy.select(envs)
        self.envs = self.envs[envs]
