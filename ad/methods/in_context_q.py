r"""In-context Q-learning (Tarasov et al. 2025, arXiv 2502.17666): values instead of imitation.

Action values of the decisions of a window, which see the context before them, are learned offline
from the same windows that algorithm distillation imitates. The losses, each the mean over the
decisions t, are those of deep Q-learning (dqn, Mnih et al. 2015),

```math
L_{dqn} = (Q_t(a_t) - r_t - \gamma \max_a Q'_{t+1}(a))^2
```

of conservative Q-learning (cql, Kumar et al. 2020) with the weight w,

```math
L_{cql} = L_{dqn} + w \left( \log \sum_a \exp Q_t(a) - Q_t(a_t) \right)
```

and of implicit Q-learning (iql, Kostrikov et al. 2022) with the expectile e and the temperature T:

```math
u_t = Q'_t(a_t) - V_t

L_{iql} = (Q_t(a_t) - r_t - \gamma V_{t+1})^2
  + |e - [u_t < 0]| u_t^2
  - \min(e^{u_t / T}, 100) \log \pi_t(a_t)
```

Q' is the target network. The value of a decision is that of the rest of its episode: nothing is
added to the reward of an episode's last transition, whether the episode terminated or was
truncated. A window holds no decision at the observation that a truncated episode ends with. The
return that counts is the one until the time limit, and `model.position: env_time` encodes the time.
The last decision of a window has no target unless its episode ends there. An action takes one
forward pass; a train step takes another of the target network.
"""

import operator
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, ClassVar

from ad.config.fields import field
from ad.methods.base import Method
from ad.methods.losses import mask_actions, masked_mean

if TYPE_CHECKING:
    import torch

    from ad.methods.action_values import ActionValueModel

    Batch = dict[str, torch.Tensor]
    Losses = dict[str, torch.Tensor]  # parts of the loss and metrics, 0-d each

LARGEST_WEIGHT = 100.0  # of an action in the policy loss (Kostrikov et al. 2022, appendix B)


@dataclass(frozen=True)
class Settings:
    """Settings of in-context Q-learning."""

    loss: str = field("cql", choices=("dqn", "cql", "iql"))
    """loss: deep Q-learning, conservative Q-learning, or implicit Q-learning with a policy head"""
    discount: float = field(0.9, at_least=0, at_most=1)
    """discount of the values"""
    target_rate: float = field(0.1, above=0, at_most=1)
    """fraction by which the target network approaches the model after each train step"""
    cql_weight: float = field(0.1, at_least=0)
    """weight of the conservative term, for method.settings.loss cql"""
    expectile: float = field(0.8, above=0, below=1)
    """expectile of the action values that a state value fits, for method.settings.loss iql"""
    temperature: float = field(0.1, above=0)
    """advantage by which an action weighs e times as much, for method.settings.loss iql"""


class InContextQ(Method):
    """Temporal-difference learning of the action values at every decision of a window.

    A rollout acts by the policy head (iql) or by the action values. The logits are then the values
    in units of their spread, the standard deviation of the action values within a decision: at
    `evaluation.temperature` 1, an action whose value is lower by it is taken e times less often.
    Noise of the rewards widens the range of returns, but not the spread of their expectations.
    `evaluation.action: greedy` is the policy of the paper; the board `decoding` varies it.
    """

    Settings = Settings
    fields: ClassVar[tuple[str, ...]] = (*Method.fields, "terminated", "truncated")

    def build(self, spec, config):
        """Return a model with action values and a target network."""
        from ad.methods.action_values import ActionValueModel

        return ActionValueModel(spec, config, self.settings.loss == "iql")

    def loss(
        self, model: "ActionValueModel", batch: "Batch"
    ) -> tuple["torch.Tensor", dict[str, "torch.Tensor"]]:
        """Return the sum of the parts of the loss, and each of them with the mean of Q(a_t)."""
        hidden = model.hidden(batch)
        values, target = model.action_values(hidden), model.target_values(batch)
        if self.settings.loss == "iql":
            parts = self._implicit(model, batch, hidden, values, target)
        else:
            parts = {"td_loss": self._td_loss(batch, values, mask_actions(target, batch).amax(-1))}
        if self.settings.loss == "cql":
            gap = mask_actions(values, batch).logsumexp(-1) - of_taken(values, batch)
            parts["cql_loss"] = self.settings.cql_weight * masked_mean(gap, batch)
        metrics = {
            "q": masked_mean(of_taken(values, batch), batch),
            "q_variance": masked_mean(variance_of(values.detach(), batch), batch),
        }
        return reduce(operator.add, parts.values()), {**parts, **metrics}

    def after_step(self, model: "ActionValueModel", metrics: "Losses") -> None:
        """Move the target network and the running variance of action values within a decision."""
        model.move_target(self.settings.target_rate)
        model.move_variance(metrics["q_variance"])

    def _td_loss(
        self, batch: "Batch", values: "torch.Tensor", following: "torch.Tensor"
    ) -> "torch.Tensor":
        """Return the mean squared error of the actions taken, 0-d.

        `values` are [B, T, A], `following` [B, T] the values that each decision bootstraps with
        where it is the next one.
        """
        targets, has_target = self.td_targets(batch, following)
        error = of_taken(values, batch) - targets
        return masked_mean((error**2).where(has_target, 0), batch)

    def td_targets(
        self, batch: "Batch", following: "torch.Tensor"
    ) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Return the targets [B, T], without gradients, and which decisions have one, bool [B, T].

        `following` [B, T] are the values of the decisions themselves.
        """
        from torch.nn.functional import pad

        done = (batch["terminated"] | batch["truncated"])[:, 1:]
        has_next = pad(batch["valid"][:, 2:], (0, 1))
        value = pad(following.detach()[:, 1:], (0, 1)).where(has_next & ~done, 0)
        return batch["reward"][:, 1:] + self.settings.discount * value, has_next | done

    def _implicit(
        self,
        model: "ActionValueModel",
        batch: "Batch",
        hidden: "torch.Tensor",
        values: "torch.Tensor",
        target: "torch.Tensor",
    ) -> "Losses":
        """Return the parts of the loss of implicit Q-learning."""
        settings, state_values = self.settings, model.state_values(hidden)
        advantage = of_taken(target, batch) - state_values
        expectile = (settings.expectile - (advantage < 0).float()).abs()
        weight = (advantage.detach() / settings.temperature).exp().clamp(max=LARGEST_WEIGHT)
        log_probs = mask_actions(model.head(hidden).float(), batch).log_softmax(-1)
        return {
            "td_loss": self._td_loss(batch, values, state_values),
            "value_loss": masked_mean(expectile * advantage**2, batch),
            "policy_loss": -masked_mean(weight * of_taken(log_probs, batch), batch),
        }


def variance_of(values: "torch.Tensor", batch: "Batch") -> "torch.Tensor":
    """Return the variances [B, T] of `values` [B, T, A] over the actions that a task has."""
    has = ~mask_actions(values, batch).isneginf()
    count = has.sum(-1).clamp(min=1)
    mean = values.where(has, 0).sum(-1) / count
    return ((values - mean[..., None]) ** 2).where(has, 0).sum(-1) / count


def of_taken(values: "torch.Tensor", batch: "Batch") -> "torch.Tensor":
    """Return the entries [B, T] of `values` [B, T, A] of the actions taken."""
    return values.gather(-1, batch["action"][:, 1:, None])[..., 0]
