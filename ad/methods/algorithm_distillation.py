"""Algorithm distillation (Laskin et al. 2022, section 3): predict the actions of histories."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ad.methods.context_memory import ContextMemory
from ad.models.sequence_model import SequenceModel
from ad.models.tokenizer import Window


@dataclass(frozen=True)
class Settings:
    """Algorithm distillation has none beside the training's."""


class AlgorithmDistillation:
    """Cross entropy of the source's actions at every decision of a window."""

    Settings = Settings
    history_part = (0.0, 1.0)  # the whole learning history

    def __init__(self, settings: Settings):
        self.settings = settings

    def loss(
        self,
        model: SequenceModel,
        window: Window,
        valid: torch.Tensor,
        label_smoothing: float = 0.0,
    ) -> torch.Tensor:
        """Mean cross entropy (nats) over the `valid` [B, T] decisions of a window [B, T + 1]."""
        targets = window["action"][:, 1:].masked_fill(~valid, -100)
        # Actions before decisions: PyTorch is slow where the last dimension is short. It adds up
        # such losses in no fixed order on a GPU, so that is done here.
        logits = model(window).float().transpose(1, 2)
        smoothing = {"label_smoothing": label_smoothing, "reduction": "none"}
        return F.cross_entropy(logits, targets, **smoothing).sum() / valid.sum()

    def begin(self, model: SequenceModel, lanes: int, context_length: int) -> ContextMemory:
        """An empty memory for a rollout of `lanes` lanes."""
        return ContextMemory(model, lanes, context_length)
