"""AdamW on flat parameters, the gradient over micro-batches, and the learning-rate schedule."""

import math
from collections.abc import Callable, Sequence

import torch

from ad.config.schema import TrainingConfig

FlatTensors = list[torch.Tensor]  # the values of all matrices, then those of all vectors: [P] each
Metrics = dict[str, torch.Tensor]  # the loss and a method's metrics, 0-d each
LossFunction = Callable[[slice], torch.Tensor]  # micro-batch -> its share of the batch's loss, 0-d
LossAndGrad = tuple[torch.Tensor, FlatTensors]  # loss, 0-d and detached, and its gradient


class FlatAdamW:
    """AdamW (Loshchilov and Hutter 2019) that keeps a model's parameters in two flat tensors.

    The parameters become views of the flat tensors, so an update takes a few operations on two
    tensors, not on sixty. The first tensor holds the matrices (two or more dimensions), the second
    the vectors (biases, norms), which have no weight decay.
    """

    def __init__(self, model: torch.nn.Module, settings: TrainingConfig):
        trained = [p for p in model.parameters() if p.requires_grad]
        matrices = [p for p in trained if p.dim() >= 2]
        vectors = [p for p in trained if p.dim() < 2]
        self.parameters = [*matrices, *vectors]  # in the order of their values in the flat tensors
        self.groups = [group for group in (matrices, vectors) if group]
        flat = self.flatten([parameter.detach() for parameter in self.parameters])
        self.flat_params = [torch.nn.Parameter(values) for values in flat]
        for values, group in zip(flat, self.groups, strict=True):
            views = values.split([parameter.numel() for parameter in group])
            for parameter, view in zip(group, views, strict=True):
                parameter.data = view.view(parameter.shape)
        self.adamw = torch.optim.AdamW(
            [
                {"params": [params], "weight_decay": settings.weight_decay * (group is matrices)}
                for params, group in zip(self.flat_params, self.groups, strict=True)
            ],
            lr=settings.learning_rate,
            betas=(settings.beta1, settings.beta2),
            fused=True,
        )
        self.max_norm = settings.gradient_norm

    def flatten(self, values: Sequence[torch.Tensor]) -> FlatTensors:
        """Concatenate one tensor for each of `parameters` into flat tensors [P]."""
        remaining, flat = [value.flatten() for value in values], []
        for group in self.groups:
            own, remaining = remaining[: len(group)], remaining[len(group) :]
            flat.append(torch.cat(own))
        return flat

    def update(
        self, gradient: FlatTensors, loss: torch.Tensor, learning_rate: float
    ) -> torch.Tensor:
        """Clip `gradient` to `gradient_norm` and take one AdamW step.

        Returns a 0-d bool: True if `loss` or `gradient` was not finite, in which case neither
        weights nor moments changed. The fused kernel decides that on the device (`found_inf`), so
        no call waits for the device.
        """
        norm = torch.stack([torch.linalg.vector_norm(values) for values in gradient]).norm()
        nonfinite = ~torch.isfinite(norm + loss)
        scale = (self.max_norm / (norm + 1e-6)).clamp(max=1)
        for params, values in zip(self.flat_params, gradient, strict=True):
            params.grad = values * scale
        for group in self.adamw.param_groups:
            group["lr"] = learning_rate
        self.adamw.found_inf = nonfinite.float()  # ty: ignore[missing-attribute] read by the kernel
        self.adamw.step()
        return nonfinite

    def state_dict(self) -> dict:
        """Return the optimizer's state for a checkpoint."""
        return self.adamw.state_dict()

    def load_state_dict(self, state: dict) -> None:
        """Restore the state that `state_dict` returned."""
        self.adamw.load_state_dict(state)


def loss_and_grad(
    optimizer: FlatAdamW, loss: LossFunction, micro_batches: Sequence[slice]
) -> LossAndGrad:
    """Sum `loss` and its gradient over `micro_batches`; 0 for parameters that it does not use."""
    total: LossAndGrad | None = None
    for part in micro_batches:
        value = loss(part)
        gradient = torch.autograd.grad(value, optimizer.parameters, materialize_grads=True)
        own = value.detach(), optimizer.flatten(gradient)
        if total is not None:
            summed = [a.add_(b) for a, b in zip(total[1], own[1], strict=True)]
            own = total[0] + own[0], summed
        total = own
    assert total is not None  # there is at least one
    return total


def learning_rate(step: int, settings: TrainingConfig) -> float:
    """Return the rate at `step`: linear warm-up, then half a cosine to `final_learning_rate`."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    steps = settings.schedule_steps or settings.steps
    share = (step - settings.warmup_steps) / max(steps - 1 - settings.warmup_steps, 1)
    height = 0.5 * (1 + math.cos(math.pi * share))
    low, high = settings.final_learning_rate, settings.learning_rate
    return low + (high - low) * height
