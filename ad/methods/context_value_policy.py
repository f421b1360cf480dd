"""The model and the policy of context values (`ad.methods.context_value`)."""

from dataclasses import replace

import torch
from torch import nn

from ad.config.schema import ModelConfig
from ad.data.spec import Spec
from ad.methods.context_policy import ContextPolicy
from ad.methods.contexts import Context
from ad.models.sequence_model import SequenceModel


class ContextValueModel(SequenceModel):
    """A sequence model that reads context values in place of rewards, and predicts them.

    They lie between the lowest and the highest return of the histories.
    """

    reads_rewards = False

    def __init__(self, spec: Spec, config: ModelConfig):
        values = replace(spec, rewards=(), reward_range=spec.return_range)
        super().__init__(values, replace(config, reward="projection"))
        self.lowest, highest = spec.return_range
        self.scale = highest - self.lowest or 1.0
        self.value_head = nn.Linear(config.width, 1)
        nn.init.normal_(self.value_head.weight, std=0.02)
        nn.init.zeros_(self.value_head.bias)

    def values(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the context values [...] of hidden states [..., C], float32."""
        return self.lowest + self.scale * self.value_head(hidden)[..., 0].float()


class ContextValuePolicy(ContextPolicy[ContextValueModel]):
    """A ContextPolicy that reads the largest context value it has predicted so far, [N].

    It begins with the lowest return of the histories, and no end of an episode resets it.
    """

    def __init__(self, model: ContextValueModel, context: Context):
        super().__init__(model, context)
        self.largest = torch.full((len(context.fields["valid"]),), model.lowest, device=self.device)

    def act(self, observation, time: torch.Tensor) -> torch.Tensor:
        """Return logits [N, A] for the decision at `observation` and `time`, int64 [N]."""
        super().enter(observation, time)
        hidden = self.context.hidden()
        self.largest = torch.maximum(self.largest, self.model.values(hidden))
        return self.model.logits(hidden)

    def enter(self, observation, time: torch.Tensor) -> None:
        """Add a decision to the context; its value is predicted, so this is not faster."""
        self.act(observation, time)

    def context_reward(self, reward: torch.Tensor) -> torch.Tensor:
        """Return what the context tells in place of rewards: the largest values, [N]."""
        return self.largest

    def reward_in_context(self) -> None:
        """Return None: the context holds no rewards."""

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order; indices may repeat."""
        super().select(envs)
        self.largest = self.largest[envs]
