r"""Context values in place of rewards (Zhang et al. 2025, arXiv 2509.23209, abstract and code).

The context value of a transition is the return of the source as it was when it recorded the
transition. Histories have it in place of their rewards: the model reads the values of past
transitions and predicts that of the present one, beside the action. In a rollout it reads its own
predictions back, as their running maximum, since an agent that learns in its context should not get
worse (`ad.methods.context_value_policy`). The loss is

```math
L = \operatorname{mean}_t \left[ -\log \pi_t(a_t) + w \left( \frac{v_t - V_t}{D} \right)^2 \right]
```

where V is the context value, v its prediction, w `value_weight`, and D the range of the histories'
returns. An action takes one forward pass, which also predicts the value. The value of a source's
policy is measured in its own history here: a history is divided into STAGES equal parts of time,
and V_t is the mean return of all episodes of the task that end in the part in which the episode of
transition t ends. In the paper's code a policy learns many layouts at once, 40 of its checkpoints
play 50 steps of each layout one after another, and V_t is the mean return of a checkpoint over 20
layouts, in further rollouts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ad.config.fields import field
from ad.data.derived import Derive, Sequences
from ad.errors import SettingError
from ad.methods import algorithm_distillation
from ad.methods.base import check_outcomes
from ad.methods.losses import cross_entropy, masked_mean

STAGES = 40  # parts of a history: as many as the paper's code has checkpoints of a source


@dataclass(frozen=True)
class Settings(algorithm_distillation.Settings):
    """Settings of context values."""

    value_weight: float = field(1.0, above=0)
    """weight of the squared error of the predicted context values, in ranges of the returns"""


def context_values(sequences: Sequences) -> np.ndarray:
    """Return the context value of each transition, float32 [M].

    It is the mean return of the episodes that end in the same stage of the histories.
    """
    arrays = sequences.arrays
    last = np.flatnonzero(arrays["terminated"] | arrays["truncated"])  # of each episode
    returns = np.diff(np.cumsum(arrays["reward"], dtype=np.float64)[last], prepend=0)
    stage = (sequences.moment[last] * STAGES).astype(int)
    means = np.bincount(stage, returns) / np.maximum(np.bincount(stage), 1)
    return np.repeat(means[stage], np.diff(last, prepend=-1)).astype(np.float32)


class ContextValue(algorithm_distillation.AlgorithmDistillation):
    """Cross entropy of the actions and squared error of the context values at every decision.

    The field `reward` of its windows is the context value, and the model reads no rewards. Values
    are numbers: `model.reward` is always projection.
    """

    Settings = Settings
    derived: ClassVar[Mapping[str, Derive]] = {"reward": context_values}
    shows_rewards = False

    def check(self, config, world):
        """Raise SettingError for tokens without context values, and for tasks that change."""
        check_outcomes(config)
        if config.env.change:  # after which the source is worse, while a maximum stays
            raise SettingError("env.change", f"must be 0 with {config.method.name}")
        super().check(config, world)

    def build(self, spec, config):
        """Return a model that reads and predicts context values."""
        from ad.methods.context_value_policy import ContextValueModel

        return ContextValueModel(spec, config)

    def loss(self, model, batch):
        """Return the sum of the losses, and each of them without its weight."""
        hidden = model.hidden(self.mask_hidden_actions(model, batch))
        logits = model.logits(hidden).float().transpose(1, 2)
        error = (model.values(hidden) - batch["reward"][:, 1:]) / model.scale
        parts = {
            "action_loss": cross_entropy(logits, batch, self.label_smoothing),
            "value_loss": masked_mean(error**2, batch),
        }
        return parts["action_loss"] + self.settings.value_weight * parts["value_loss"], parts

    def policy(self, model, num_envs, context_length, settings):
        """Return a policy that reads the running maximum of its predictions."""
        from ad.methods.context_value_policy import ContextValuePolicy

        return ContextValuePolicy(model, self.context(model, num_envs, context_length))
