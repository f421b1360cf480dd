"""Losses and metrics of a batch of windows: means over its decisions, masked actions.

The decisions of a batch are its entries 1 to T; a loss is a mean over those of `loss_mask`. Actions
that a task lacks are those outside `action_mask`, a field that a batch has only where tasks have
different numbers of actions.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a configuration imports the methods, but not torch
    import torch

    Batch = dict[str, torch.Tensor]


def loss_mask(batch):
    """Return which decisions a loss is a mean over, bool [B, T]: valid ones, and no retrieved ones.

    Only windows of the memory `retrieval` have a field `retrieved`.
    """
    valid = batch["valid"][:, 1:]
    return valid & ~batch["retrieved"][:, 1:] if "retrieved" in batch else valid


def masked_mean(values: "torch.Tensor", batch: "Batch") -> "torch.Tensor":
    """Return the mean of `values` [B, T] over the decisions of `loss_mask`, 0-d."""
    mask = loss_mask(batch)
    return values.where(mask, 0).sum() / mask.sum()


def mask_actions(values: "torch.Tensor", batch: "Batch", dim: int = -1) -> "torch.Tensor":
    """Return `values` [B, T, A] with -inf for the actions that the task lacks.

    `dim` is the dimension of the actions: with 1 `values` are [B, A, T].
    """
    if "action_mask" not in batch:
        return values
    return values.masked_fill(~action_mask(batch, dim), float("-inf"))


def action_mask(batch: "Batch", dim: int = -1) -> "torch.Tensor":
    """Return which actions the task has at each decision, bool [B, T, A]; [B, A, T] for `dim` 1."""
    return batch["action_mask"][:, 1:].movedim(-1, dim)


def cross_entropy(logits: "torch.Tensor", batch: "Batch", smoothing: float) -> "torch.Tensor":
    """Return the mean cross entropy (nats) of the actions by `logits` [B, A, T], 0-d.

    Actions that the task lacks count as impossible. `smoothing` is the label smoothing: a
    probability that is spread over all actions of the task.
    """
    if "action_mask" in batch:
        return masked_mean(_masked_cross_entropy(logits, batch, smoothing), batch)
    from torch.nn.functional import cross_entropy

    # The mean that `cross_entropy` computes has no fixed order of additions on a GPU.
    targets = batch["action"][:, 1:].masked_fill(~loss_mask(batch), -100)
    losses = cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")
    return masked_mean(losses, batch)


def _masked_cross_entropy(
    logits: "torch.Tensor", batch: "Batch", smoothing: float
) -> "torch.Tensor":
    """Return the cross entropy [B, T] of the actions over the actions that the task has."""
    mask = action_mask(batch, 1)
    log_probs = mask_actions(logits, batch, 1).log_softmax(1).where(mask, 0)
    targets = batch["action"][:, 1:].clamp(max=logits.shape[1] - 1)
    of_targets = log_probs.gather(1, targets[:, None])[:, 0]
    return -(1 - smoothing) * of_targets - smoothing * log_probs.sum(1) / mask.sum(1)


def accuracy(logits: "torch.Tensor", batch: "Batch") -> "torch.Tensor":
    """Return how often the largest of `logits` [B, A, T] is that of the action taken, 0-d."""
    hits = mask_actions(logits, batch, 1).argmax(1) == batch["action"][:, 1:]
    return masked_mean(hits, batch)
