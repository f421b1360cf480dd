"""Algorithm distillation (Laskin et al. 2022, section 3): predict the actions of histories."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ad.config.fields import field
from ad.methods.base import Method

if TYPE_CHECKING:
    import torch

    from ad.data.sampler import Batch, WindowSampler
    from ad.models.sequence_model import SequenceModel


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
    can_be_stacked = True

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
        return self.cross_entropy(self.logits(model, batch), batch), {}

    def logits(self, model: "SequenceModel", batch: dict[str, "torch.Tensor"]) -> "torch.Tensor":
        """Return the logits [B, A, T] of a batch, float32, from which `hidden` actions are hidden.

        The actions come first, since PyTorch is slow where the last dimension is short.
        """
        if "hidden" in batch:
            action = batch["action"].masked_fill(batch["hidden"], model.spec.num_actions)
            batch = {**batch, "action": action}
        return model(batch).float().transpose(1, 2)

    def cross_entropy(
        self, logits: "torch.Tensor", batch: dict[str, "torch.Tensor"]
    ) -> "torch.Tensor":
        """Return the mean cross entropy of the actions of a batch by `logits` [B, A, T], 0-d."""
        from torch.nn.functional import cross_entropy

        # The mean that `cross_entropy` computes has no fixed order of additions on a GPU, so it is
        # taken here.
        valid, smoothing = batch["valid"][:, 1:], self.label_smoothing
        if "action_mask" in batch:
            mask = batch["action_mask"][:, 1:].transpose(1, 2)
            losses = masked_cross_entropy(logits, batch["action"][:, 1:], mask, smoothing)
            return losses.where(valid, 0).sum() / valid.sum()
        targets = batch["action"][:, 1:].masked_fill(~valid, -100)
        losses = cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")
        return losses.sum() / valid.sum()


class HiddenActions:
    """A sampler that adds the field `hidden`: each action is hidden with `probability`.

    The loss still reads the action.
    """

    def __init__(self, windows: "WindowSampler", probability: float):
        self.windows, self.probability = windows, probability

    def sample(self, rng: np.random.Generator, count: int) -> "Batch":
        """Draw `count` windows with the field `hidden`, bool [count, T + 1]."""
        batch = self.windows.sample(rng, count)
        return batch | {"hidden": rng.random(batch["action"].shape) < self.probability}


def masked_cross_entropy(
    logits: "torch.Tensor", targets: "torch.Tensor", mask: "torch.Tensor", smoothing: float
) -> "torch.Tensor":
    """Return the cross entropy [B, T] of `targets` [B, T] over the actions in `mask` [B, A, T].

    `logits` are [B, A, T]. `smoothing` is spread over the actions in the mask.
    """
    lowest = logits.new_tensor(float("-inf"))
    log_probs = logits.where(mask, lowest).log_softmax(1).where(mask, 0)
    of_targets = log_probs.gather(1, targets.clamp(max=logits.shape[1] - 1)[:, None])[:, 0]
    return -(1 - smoothing) * of_targets - smoothing * log_probs.sum(1) / mask.sum(1)
