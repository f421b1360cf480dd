"""The model of in-context Q-learning: action values, a slow copy of them, and a policy head."""

from itertools import chain

import torch
from torch import nn

from ad.config.schema import ModelConfig
from ad.data.spec import Spec
from ad.models.sequence_model import SequenceModel

SMALLEST_VARIANCE = 1e-12  # of equal action values, whose logits are equal in any unit
SPREAD_RATE = 0.1  # fraction by which the running variance moves after each train step


class ActionValueModel(SequenceModel):
    """A sequence model with action values Q on the hidden states, and a target network.

    With `has_policy`, `head` gives the logits of a policy, `q_head` the action values and `v_head`
    a state value. Without it `head` gives the action values, which the logits are computed from,
    in units of their spread: `variance` is the running mean over train steps of the variance of the
    action values within a decision. `target` is a whole model, the slow copy of what the action
    values are computed with.
    """

    variance: torch.Tensor

    def __init__(self, spec: Spec, config: ModelConfig, has_policy: bool):
        super().__init__(spec, config)
        self.register_buffer("variance", torch.ones(()))
        self.q_head = nn.Linear(config.width, spec.num_actions) if has_policy else None
        self.v_head = nn.Linear(config.width, 1) if has_policy else None
        for head in filter(None, (self.q_head, self.v_head)):
            nn.init.normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)
        self.target = SequenceModel(spec, config).requires_grad_(False)
        self.move_target(1.0)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits [..., A] of the policy head for hidden states [..., C].

        Without one they are the action values in units of their spread.
        """
        logits = super().logits(hidden)
        if self.q_head is not None:
            return logits
        return logits / self.variance.clamp(min=SMALLEST_VARIANCE).sqrt()

    def action_values(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the action values [B, T, A] of hidden states [B, T, C], float32."""
        return (self.head if self.q_head is None else self.q_head)(hidden).float()

    def state_values(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the state values [B, T] of hidden states [B, T, C], float32."""
        assert self.v_head is not None  # a model with a policy has one
        return self.v_head(hidden)[..., 0].float()

    @torch.no_grad()
    def target_values(self, window) -> torch.Tensor:
        """Return the action values [B, T, A] of the target network for a window, float32."""
        return self.target(window).float()

    @torch.no_grad()
    def move_target(self, rate: float) -> None:
        """Move the target network by the fraction `rate` of the way (Polyak averaging)."""
        head = self.head if self.q_head is None else self.q_head
        parts = (self.tokenizer, self.memory, head)  # in the order of the target
        copied = chain.from_iterable(part.parameters() for part in parts)
        for slow, fast in zip(self.target.parameters(), copied, strict=True):
            slow.lerp_(fast, rate)

    @torch.no_grad()
    def move_variance(self, variance: torch.Tensor) -> None:
        """Move the running variance toward that of a batch, 0-d, unless that is not finite."""
        moved = self.variance.lerp(variance.to(self.variance.dtype), SPREAD_RATE)
        self.variance.copy_(torch.where(variance.isfinite(), moved, self.variance))

    def train(self, mode: bool = True) -> "ActionValueModel":
        """Set the mode of all but the target network, which never drops out anything."""
        super().train(mode)
        self.target.eval()
        return self
