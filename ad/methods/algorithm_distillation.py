r"""Algorithm distillation (Laskin et al. 2022, section 3): predict the actions of histories.

The loss is the mean over the decisions t of a window, which begins at any transition of a history
and spans episodes:

```math
L = -\operatorname{mean}_t \log \pi(a_t \mid o_0, a_0, r_0, \dots, o_{t-1}, a_{t-1}, r_{t-1}, o_t)
```

An action of a rollout takes one forward pass, of the tokens that are new.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ad.config.fields import field
from ad.methods.base import Method
from ad.methods.losses import cross_entropy

if TYPE_CHECKING:
    import torch

    from ad.data.sampler import Batch, Windows
    from ad.models.sequence_model import SequenceModel

    Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Settings:
    """Settings of algorithm distillation."""

    label_smoothing: float = field(0.0, at_least=0, below=1)
    """label smoothing of the target actions"""
    action_dropout: float = field(0.0, at_least=0, below=1)
    """probability with which each past action is hidden from the model in training"""


class AlgorithmDistillation(Method):
    """Cross entropy of the source agent's actions at every decision of a window."""

    Settings = Settings

    def __init__(self, settings):
        super().__init__(settings)
        # A subclass may have settings of its own, without these two.
        self.label_smoothing = getattr(settings, "label_smoothing", 0.0)
        self.action_dropout = getattr(settings, "action_dropout", 0.0)

    def sampler(self, dataset, held_out=False):
        """Return the default sampler, which hides past actions if that is configured."""
        windows = super().sampler(dataset, held_out)
        probability = 0.0 if held_out else self.action_dropout
        return HiddenActions(windows, probability) if probability else windows

    def loss(self, model, batch):
        """Return the mean cross entropy (nats) over the valid decisions, and no metrics.

        With an action mask, actions that the task does not have count as impossible.
        """
        return cross_entropy(self.logits(model, batch), batch, self.label_smoothing), {}

    def logits(self, model: "SequenceModel", batch: "Tensors") -> "torch.Tensor":
        """Return the logits [B, A, T] of a batch, float32, with the `hidden` actions masked.

        The actions come first, since PyTorch is slow where the last dimension is short.
        """
        return model(self.mask_hidden_actions(model, batch)).float().transpose(1, 2)

    def mask_hidden_actions(self, model: "SequenceModel", batch: "Tensors") -> "Tensors":
        """Return the batch that the model reads, in which the `hidden` actions are hidden."""
        if "hidden" not in batch:
            return batch
        action = batch["action"].masked_fill(batch["hidden"], model.spec.num_actions)
        return {**batch, "action": action}


class HiddenActions:
    """A sampler that adds the field `hidden`: each action is hidden with `probability`.

    The loss still reads the action.
    """

    def __init__(self, windows: "Windows", probability: float):
        self.windows, self.probability = windows, probability

    def sample(self, rng: np.random.Generator, count: int) -> "Batch":
        """Draw `count` windows with the field `hidden`, bool [count, T + 1]."""
        batch = self.windows.sample(rng, count)
        return batch | {"hidden": rng.random(batch["action"].shape) < self.probability}
