"""Algorithm distillation (Laskin et al. 2022, section 3): predict the actions of histories."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch is imported where it is used: a configuration needs only the Settings
    import torch

    from ad.methods.context_policy import ContextPolicy
    from ad.models.sequence_model import SequenceModel
    from ad.models.tokenizer import Window


@dataclass(frozen=True)
class Settings:
    """Algorithm distillation has no settings of its own."""


class AlgorithmDistillation:
    """Cross entropy of the source agent's actions at every decision of a window."""

    Settings = Settings
    history_part = (0.0, 1.0)  # fractions of a learning history: from its start to its end

    def __init__(self, settings: Settings):
        self.settings = settings

    def loss(
        self,
        model: "SequenceModel",
        window: "Window",
        valid: "torch.Tensor",
        label_smoothing: float = 0.0,
    ) -> "torch.Tensor":
        """Return the mean cross entropy (nats), 0-d, over the `valid` [B, T] decisions.

        `window` has fields [B, T + 1]; its first transition comes before the first decision.
        """
        from torch.nn.functional import cross_entropy

        targets = window["action"][:, 1:].masked_fill(~valid, -100)
        # Logits [B, A, T]: PyTorch is slow where the last dimension is short. The mean that
        # `cross_entropy` computes has no fixed order of additions on a GPU, so it is taken here.
        logits = model(window).float().transpose(1, 2)
        smoothing = {"label_smoothing": label_smoothing, "reduction": "none"}
        return cross_entropy(logits, targets, **smoothing).sum() / valid.sum()

    def begin(self, model: "SequenceModel", num_envs: int, context_length: int) -> "ContextPolicy":
        """Return a policy with an empty context for a rollout of `num_envs` environments."""
        from ad.methods.context_policy import ContextPolicy

        return ContextPolicy(model, num_envs, context_length)
