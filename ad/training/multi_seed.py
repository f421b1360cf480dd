"""Training steps of several seeds of one configuration, stacked or in turns.

On a GPU a step of a small model is launch-bound: it takes about the time in which the CPU launches
its kernels. There the parameters of all models are stacked, and one forward and backward pass
(`torch.vmap`) serves all of them. Trainers take turns on a CPU, which is busy with one model alone,
and where a step draws random numbers on the device, which must be those of its seed.
"""

import operator
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from ad.config.schema import Experiment
from ad.data.dataset import to_device
from ad.runtime.console import warn
from ad.training.compiling import compiled
from ad.training.optimizer import FlatTensors, Metrics
from ad.training.trainer import BaseTrainer, Trainer

# Attention kernels that save activations for the backward pass under vmap too. The others save them
# only if their inputs require a gradient, and tensors that vmap has wrapped say that they do not.
VMAP_ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]


def step_function(stacked: bool) -> Callable[[Sequence[BaseTrainer]], None]:
    """Return a function that takes one step of each trainer it is given, all at the same step."""
    return StackedSteps().step if stacked else _take_turns


def _take_turns(trainers: Sequence[BaseTrainer]) -> None:
    for trainer in trainers:
        with trainer.timed():
            trainer.train_step()


def stacking_is_faster(trainers: Sequence[BaseTrainer]) -> bool:
    """Return whether one pass for all `trainers` takes less time than one for each.

    The numbers are the same but for rounding.
    """
    if len(trainers) < 2:
        return False
    first = trainers[0]
    return first.device.type == "cuda" and can_be_stacked(first)


def can_be_stacked(trainer: Trainer) -> bool:
    """Return whether the method's class says so, and the model draws no random numbers.

    A pass of several seeds takes whole batches, and saves all activations.
    """
    declared = vars(type(trainer.method)).get("can_be_stacked", False)
    settings = trainer.config.training
    saves_memory = settings.micro_batches > 1 or settings.activation_checkpointing
    return declared and not saves_memory and not draws_random_numbers(trainer.config, trainer.model)


def draws_random_numbers(config: Experiment, model: torch.nn.Module) -> bool:
    """Return whether a training step draws random numbers other than those of its batch."""
    settings = config.model
    return bool(settings.dropout or settings.attention_dropout or model.tokenizer.random)


class StackedSteps:
    """Steps of several trainers in one pass; keeps the stacked models of the latest ones."""

    def __init__(self):
        self.models: StackedModels | None = None
        self.fits = True

    def step(self, trainers: Sequence[Trainer]) -> None:
        """Take the present step of all `trainers`; each is charged its share of the time."""
        if len(trainers) == 1 or not self.fits:
            return _take_turns(trainers)
        begin = time.perf_counter()
        results = self._losses_and_grads(trainers)
        if not results:
            return _take_turns(trainers)
        for trainer, (metrics, gradient) in zip(trainers, results, strict=True):
            trainer.update(metrics, gradient)
        for trainer in trainers:
            trainer.seconds += (time.perf_counter() - begin) / len(trainers)

    def _losses_and_grads(self, trainers: Sequence[Trainer]) -> list[tuple[Metrics, FlatTensors]]:
        """Return each trainer's loss and gradient; an empty list if the GPU's memory is short."""
        try:
            if self.models is None or not self.models.holds(trainers):
                self.models = None  # its memory may be needed
                self.models = StackedModels(trainers)
            return self.models.losses_and_grads()
        except torch.OutOfMemoryError:
            self.fits, self.models = False, None
            warn(f"the GPU's memory is too small for {len(trainers)} seeds: they take turns")
            return []


class StackedModels:
    """The parameters of S trainers' models, stacked [S, ...]; each model has views of them."""

    def __init__(self, trainers: Sequence[Trainer]):
        first = trainers[0]
        self.trainers, self.optimizers = list(trainers), [t.optimizer for t in trainers]
        of_seeds = [[params.data for params in own.flat_params] for own in self.optimizers]
        flat = [torch.stack(values) for values in zip(*of_seeds, strict=True)]  # [S, P] each
        for seed, optimizer in enumerate(self.optimizers):
            optimizer.rebind([values[seed] for values in flat])
        self.loss = _Loss(first)
        names = {id(p): name for name, p in self.loss.named_parameters()}
        self.parameters = {  # in the order of the optimizers'
            names[id(p)]: view.view(len(trainers), *p.shape).detach().requires_grad_()
            for p, view in first.optimizer.views(flat)
        }
        self.losses = torch.vmap(self._loss)
        if first.config.training.compile:
            self.losses = compiled(self.losses, self._pass)

    def holds(self, trainers: Sequence[Trainer]) -> bool:
        """Return whether these are the models of `trainers` with their present optimizers."""
        own = [trainer.optimizer for trainer in trainers]
        return len(own) == len(self.optimizers) and all(map(operator.is_, own, self.optimizers))

    def losses_and_grads(self) -> list[tuple[Metrics, FlatTensors]]:
        """Return what `Trainer.loss_and_grad` returns, for each trainer."""
        metrics, flat = self._pass(self.losses)
        return [
            (
                {name: values[seed] for name, values in metrics.items()},
                [values[seed] for values in flat],
            )
            for seed in range(len(self.trainers))
        ]

    def _pass(self, losses_of: Callable) -> tuple[Metrics, FlatTensors]:
        """Return loss and metrics of the present step, [S] each, and the gradients, flat [S, P]."""
        first, batches = self.trainers[0], [trainer.batch() for trainer in self.trainers]
        stacked = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
        first.model.train()
        with sdpa_kernel(VMAP_ATTENTION):
            losses, further = losses_of(self.parameters, to_device(stacked, first.device))
        parameters = list(self.parameters.values())
        gradient = torch.autograd.grad(losses.sum(), parameters, materialize_grads=True)
        flat = first.optimizer.flatten([values.flatten(1) for values in gradient])
        return {**further, "loss": losses.detach()}, flat

    def _loss(self, parameters: dict, batch: dict) -> tuple[torch.Tensor, Metrics]:
        """Return the loss of one seed and the method's metrics, 0-d; [S] under vmap."""
        return functional_call(self.loss, parameters, (batch,))


class _Loss(torch.nn.Module):
    """The loss of a trainer as a function of its model's parameters."""

    def __init__(self, trainer: Trainer):
        super().__init__()
        self.loss, self.model = trainer.loss, trainer.model

    def forward(self, batch: dict) -> tuple[torch.Tensor, Metrics]:
        """Return the loss of `batch` and the method's metrics."""
        loss, further = self.loss(self.model, batch)
        return loss, {name: value.detach() for name, value in further.items()}
