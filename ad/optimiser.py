"""The optimiser of the transformer: AdamW, its schedule, and an update that leaves NaN out."""

import math

import torch

from ad.config import TrainingConfig


def new_optimiser(model: torch.nn.Module, settings: TrainingConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019); biases, norms and embeddings of one row do not decay."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    betas = (settings.beta1, settings.beta2)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=betas, fused=True)


def update(model: torch.nn.Module, optimiser, loss: torch.Tensor, most: float) -> torch.Tensor:
    """One step down the gradient that `model` holds, its norm at `most`; was it bad? 0-d bool.

    Bad is a `loss` or gradient that is not finite: then weights and optimiser stay as they are. The
    fused kernel decides that on the device (`found_inf`), so that nobody waits for it here.
    """
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), most)
    bad = ~torch.isfinite(norm + loss)
    optimiser.found_inf = bad.float()
    optimiser.step()
    return bad


def learning_rate(step: int, settings: TrainingConfig) -> float:
    """Linear warm-up over `warmup_steps`, then half a cosine down to `final_learning_rate`."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    share = (step - settings.warmup_steps) / max(settings.steps - 1 - settings.warmup_steps, 1)
    height = 0.5 * (1 + math.cos(math.pi * share))
    low, high = settings.final_learning_rate, settings.learning_rate
    return low + (high - low) * height
