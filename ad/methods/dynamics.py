"""The model of planning in context: the outcome of an action as well as the action."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from ad.config.schema import ModelConfig
from ad.data.spec import Spec, field_name
from ad.models.sequence_model import SequenceModel
from envs.spaces import Discrete


class Outcome(NamedTuple):
    """Predictions of a model about what follows an action, [...] each.

    reward: the most likely of the listed rewards of the histories, the mean where they are a range.
    mean_reward: the mean of the distribution of the rewards.
    return_after: the mean return of the rest of the episode, after the reward.
    terminated: whether the episode most likely terminates, bool.
    """

    reward: torch.Tensor
    mean_reward: torch.Tensor
    return_after: torch.Tensor
    terminated: torch.Tensor


class DynamicsModel(SequenceModel):
    """A sequence model that also predicts what follows an action.

    The reward is one of the listed rewards of the histories, or a number where they are a range.
    Each part of the next observation is an index, predicted apart from the other parts.

    `features` joins the hidden state of a decision and the tokenizer's embedding of its action. The
    token of a decision cannot hold its action, which is predicted from it, and a further token for
    each action would lengthen the context and change what the actions are predicted from. The
    embedding is shared, since it is what past actions and their outcomes are encoded by in the
    context, and a hidden layer lets the action and the state interact.
    """

    rewards: torch.Tensor

    def __init__(self, spec: Spec, config: ModelConfig):
        super().__init__(spec, config)
        self.register_buffer("rewards", torch.tensor(spec.rewards), persistent=False)
        low, high = spec.return_range
        self.return_scale = high - low or 1.0
        parts = spec.observation.items()
        self.parts = {name: part.n for name, part in parts if isinstance(part, Discrete)}
        self.joint = nn.Linear(2 * config.width, config.feed_forward)
        self.outcome_head = nn.Linear(config.feed_forward, 2 + (len(spec.rewards) or 1))
        self.observation_head = nn.Linear(config.feed_forward, sum(self.parts.values()))
        for head in (self.outcome_head, self.observation_head):
            nn.init.normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)

    def features(self, hidden: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """Return the features [..., F] of hidden states [..., C] and actions, int64 [...].

        Leading dimensions are broadcast: of hidden states [N, 1, C] and actions [N, M], the
        features are [N, M, F].
        """
        # The joint layer is applied to the hidden states and to the table of actions separately:
        # each hidden state is multiplied once, however many actions follow it.
        hidden_weight, action_weight = self.joint.weight.split(hidden.shape[-1], dim=1)
        actions = F.linear(self.tokenizer.action.weight, action_weight, self.joint.bias)  # [A+1, F]
        return F.gelu(F.linear(hidden, hidden_weight) + F.embedding(action, actions))

    def outcome(self, features: torch.Tensor) -> Outcome:
        """Return what follows the actions of `features` [..., F], without the observation."""
        return_after, termination, reward = self._outcome_logits(features)
        if len(self.rewards):
            mean = (reward.softmax(-1) * self.rewards).sum(-1)
            reward = self.rewards[reward.argmax(-1)]
        else:
            mean = reward = reward[..., 0] * self.return_scale
        return Outcome(reward, mean, return_after * self.return_scale, termination > 0)

    def next_observation(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the most likely next observations, int64 [...] for each part."""
        logits = self._observation_logits(features)
        return {name: values.argmax(-1) for name, values in logits.items()}

    def losses(
        self, features: torch.Tensor, batch: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Return the losses [B, T] of the predictions for a batch, by name.

        They are cross entropies (nats), but squared errors for returns, and for rewards in a range,
        in units of the range of the histories' returns.
        """
        return_after, termination, reward = self._outcome_logits(features)
        taken = {name: batch[name][:, 1:] for name in ("reward", "return_to_go", "terminated")}
        left = (taken["return_to_go"] - taken["reward"]) / self.return_scale
        observation_losses = [
            _cross_entropy(logits, batch[field_name("next_observation", name)][:, 1:])
            for name, logits in self._observation_logits(features).items()
        ]
        return {
            "reward_loss": self._reward_loss(reward, taken["reward"]),
            "return_loss": (return_after - left) ** 2,
            "termination_loss": F.binary_cross_entropy_with_logits(
                termination, taken["terminated"].to(termination.dtype), reduction="none"
            ),
            "observation_loss": torch.stack(observation_losses).sum(0),
        }

    def _reward_loss(self, predicted: torch.Tensor, reward: torch.Tensor) -> torch.Tensor:
        if not len(self.rewards):
            return (predicted[..., 0] - reward / self.return_scale) ** 2
        return _cross_entropy(predicted, (reward[..., None] - self.rewards).abs().argmin(-1))

    def _outcome_logits(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the scaled returns [...], logits of terminations [...] and of rewards [..., R]."""
        values = self.outcome_head(features).float()
        return values[..., 0], values[..., 1], values[..., 2:]

    def _observation_logits(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the logits [..., n] of each part of the next observation, float32."""
        logits = self.observation_head(features).float()
        parts = logits.split([*self.parts.values()], -1)
        return dict(zip(self.parts, parts, strict=True))


def _cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the cross entropy [B, T] of `targets` [B, T] by `logits` [B, T, n]."""
    return F.cross_entropy(logits.movedim(-1, 1), targets, reduction="none")
