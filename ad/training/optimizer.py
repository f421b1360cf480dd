"""The optimiser of the transformer: AdamW, its schedule, and an update that leaves NaN out."""

import math
from collections.abc import Iterator, Sequence

import torch

from ad.config.schema import TrainingConfig
from ad.errors import ConfigError

Rows = list[torch.Tensor]  # numbers of all matrices of a model, and of all vectors: [P] each


class Optimiser:
    """AdamW (Loshchilov and Hutter 2019) on a model whose parameters it puts into two rows.

    The parameters become views of them, so that an update is a few operations on two tensors and
    not on sixty. Biases, norms and embeddings of one row do not decay.
    """

    def __init__(self, model: torch.nn.Module, settings: TrainingConfig):
        trained = [p for p in model.parameters() if p.requires_grad]
        matrices = [p for p in trained if p.dim() >= 2]
        vectors = [p for p in trained if p.dim() < 2]
        self.parameters = [*matrices, *vectors]  # in the order of their numbers in the rows
        self.groups = [group for group in (matrices, vectors) if group]
        numbers = self.gather([parameter.detach().flatten() for parameter in self.parameters])
        self.rows = [torch.nn.Parameter(row) for row in numbers]
        self.move(numbers)
        self.adamw = torch.optim.AdamW(
            [
                {"params": [row], "weight_decay": settings.weight_decay * (group is matrices)}
                for row, group in zip(self.rows, self.groups, strict=True)
            ],
            lr=settings.learning_rate,
            betas=(settings.beta1, settings.beta2),
            fused=True,
        )
        self.most = settings.gradient_norm

    def gather(self, values: Sequence[torch.Tensor]) -> Rows:
        """Flat numbers [..., n] of each of `parameters`, as rows [..., P]."""
        left, rows = list(values), []
        for group in self.groups:
            mine, left = left[: len(group)], left[len(group) :]
            rows.append(torch.cat(mine, dim=-1))
        return rows

    def parts(self, rows: Rows) -> Iterator[tuple[torch.nn.Parameter, torch.Tensor]]:
        """The inverse: each of `parameters` with its numbers [..., n] in `rows`."""
        for row, group in zip(rows, self.groups, strict=True):
            yield from zip(group, row.split([p.numel() for p in group], dim=-1), strict=True)

    def move(self, rows: Rows) -> None:
        """Keep the parameters in the memory of `rows` from now on."""
        for row, place in zip(self.rows, rows, strict=True):
            row.data = place.copy_(row.data)
        for parameter, part in self.parts(rows):
            parameter.data = part.view(parameter.shape)

    def update(self, gradient: Rows, loss: torch.Tensor, learning_rate: float) -> torch.Tensor:
        """One step down the `gradient`, cut to the largest norm; was it bad? 0-d bool.

        Bad is a `loss` or gradient that is not finite: then weights and moments stay as they are.
        The fused kernel decides that on the device (`found_inf`), so that nobody waits for it here.
        """
        norm = torch.stack([torch.linalg.vector_norm(row) for row in gradient]).norm()
        bad = ~torch.isfinite(norm + loss)
        cut = (self.most / (norm + 1e-6)).clamp(max=1)
        for row, mine in zip(self.rows, gradient, strict=True):
            row.grad = mine * cut
        for group in self.adamw.param_groups:
            group["lr"] = learning_rate
        self.adamw.found_inf = bad.float()
        self.adamw.step()
        return bad

    def state_dict(self) -> dict:
        """What a checkpoint keeps."""
        return self.adamw.state_dict()

    def load_state_dict(self, state: dict) -> None:
        """Go on from what `state_dict` gave. Raises ConfigError if it is of another kind."""
        try:
            self.adamw.load_state_dict(state)
        except ValueError:
            raise ConfigError(
                "the checkpoint is one of an earlier version: train again, with --fresh true"
            ) from None


def learning_rate(step: int, settings: TrainingConfig) -> float:
    """Linear warm-up over `warmup_steps`, then half a cosine down to `final_learning_rate`."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    share = (step - settings.warmup_steps) / max(settings.steps - 1 - settings.warmup_steps, 1)
    height = 0.5 * (1 + math.cos(math.pi * share))
    low, high = settings.final_learning_rate, settings.learning_rate
    return low + (high - low) * height
