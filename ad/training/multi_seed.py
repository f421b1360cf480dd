"""Several training seeds of one configuration in one process, side by side.

On a GPU a step of a small model takes about the time in which a CPU asks for its operations. So the
parameters of all models lie stacked there, and one forward and backward pass (`torch.vmap`) asks
for those of all. A CPU is busy with one model alone: there the trainers take turns. So they do
where a step draws random numbers on the device, which are then a seed's own; and a trainer that is
behind, since it was interrupted earlier or rolled back, goes on alone until it has caught up.
"""

import operator
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from ad.config.schema import Experiment
from ad.data.dataset import to_device
from ad.errors import NumericError
from ad.runtime.console import complain, notice
from ad.runtime.run import Run
from ad.training.compiling import compiled
from ad.training.gradients import Found
from ad.training.optimizer import Rows
from ad.training.trainer import Trainer

# Kernels of attention whose forward pass keeps what the backward one needs under vmap too: others
# ask the wrapped tensors, which say that they need no gradient.
BATCHED = [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]


def never() -> bool:
    """Nobody asks training to stop."""
    return False


def new_trainers(runs: Sequence[Run]) -> list[Trainer]:
    """A trainer for each of `runs`, which differ in their training seeds; they share the data."""
    first, *others = runs
    shared = Trainer(first)
    return [shared, *(Trainer(run, shared.data) for run in others)]


def train_together(
    trainers: Sequence[Trainer],
    asked_to_stop: Callable[[], bool] = never,
    stacked: bool | None = None,
) -> None:
    """Train all of them to the configured number of steps, from wherever each of them is.

    `stacked`: all in one pass, or in turns; None is what pays. `asked_to_stop` is asked after every
    round; if so, checkpoints are written and this returns. One whose numbers go wrong does not stop
    the others: NumericError is raised at the end.
    """
    if stacked is None:
        stacked = stacking_pays(trainers)
    failed: dict[str, NumericError] = {}
    left = [trainer for trainer in trainers if trainer.left]
    behind = min(left, key=lambda trainer: trainer.step, default=None)  # whose bar is shown
    with ExitStack() as sessions:
        for trainer in left:
            sessions.enter_context(trainer.session(len(left), stacked, trainer is behind))
        take_steps = new_round(stacked)
        while left:
            step = min(trainer.step for trainer in left)
            now = [trainer for trainer in left if trainer.step == step]
            take_steps(now)
            for trainer in now:
                try:
                    trainer.after_step()
                except NumericError as error:
                    failed[trainer.config.name] = error
                    if len(trainers) > 1:
                        complain(f"{trainer.config.name}: {error}")
            left = [t for t in left if t.left and t.config.name not in failed]
            if asked_to_stop():  # whatever failed will do so again
                for trainer in left:
                    trainer.save()
                return
    if failed and len(trainers) == 1:
        raise failed.popitem()[1]
    if failed:
        names = ", ".join(failed)
        raise NumericError(f"{len(failed)} of {len(trainers)} trainings failed: {names}")


def _in_turns(trainers: Sequence[Trainer]) -> None:
    for trainer in trainers:
        with trainer.working():
            trainer.train_step()


def new_round(stacked: bool) -> Callable[[Sequence[Trainer]], None]:
    """What takes a step of each of some trainers, which are all at the same one."""
    return _Stacks().step if stacked else _in_turns


def stacking_pays(trainers: Sequence[Trainer]) -> bool:
    """Whether one pass for all of them takes less time than one for each.

    The numbers are the same but for rounding.
    """
    if len(trainers) < 2:
        return False
    first = trainers[0]
    return first.device.type == "cuda" and not draws(first.config, first.model)


def draws(config: Experiment, model: torch.nn.Module) -> bool:
    """Whether a step of training draws random numbers beside those of its batch."""
    settings = config.model
    return bool(settings.dropout or settings.attention_dropout or model.layout.encoder.random)


class _Stacks:
    """Steps of several trainers at once; it keeps the stack of those that it served last."""

    def __init__(self):
        self.stack: _Stack | None = None
        self.fit = True

    def step(self, trainers: Sequence[Trainer]) -> None:
        """Take the present step of all `trainers`, each of which is charged its share."""
        if len(trainers) == 1 or not self.fit:
            return _in_turns(trainers)
        begin = time.perf_counter()
        found = self._found(trainers)
        if not found:
            return _in_turns(trainers)
        for trainer, (loss, rows) in zip(trainers, found, strict=True):
            trainer.update(loss, rows)
        for trainer in trainers:
            trainer.spent += (time.perf_counter() - begin) / len(trainers)

    def _found(self, trainers: Sequence[Trainer]) -> list[Found]:
        """What `Trainer.gradient` finds for each of them; nothing if there is no room for all."""
        try:
            if self.stack is None or not self.stack.holds(trainers):
                self.stack = None  # its memory may be needed
                self.stack = _Stack(trainers)
            return self.stack.gradients()
        except torch.OutOfMemoryError:
            self.fit, self.stack = False, None
            notice(f"no room on the GPU for {len(trainers)} seeds at once: they take turns")
            return []


class _Stack:
    """The parameters of several trainers' models, stacked: [S, ...] each, and views of them."""

    def __init__(self, trainers: Sequence[Trainer]):
        first = trainers[0]
        self.trainers, self.optimisers = list(trainers), [t.optimiser for t in trainers]
        rows = zip(*([row.data for row in own.rows] for own in self.optimisers), strict=True)
        places = [torch.stack(alike) for alike in rows]  # [S, P]
        for number, optimiser in enumerate(self.optimisers):
            optimiser.move([place[number] for place in places])
        names = {id(p): name for name, p in first.model.named_parameters()}
        self.parameters = {  # in the order of the optimisers'
            names[id(p)]: part.view(len(trainers), *p.shape).detach().requires_grad_()
            for p, part in first.optimiser.parts(places)
        }
        self.losses = torch.vmap(self._loss)
        if first.config.training.compile:
            self.losses = compiled(self.losses, self._find)

    def holds(self, trainers: Sequence[Trainer]) -> bool:
        """Whether it is of these, and of their present optimisers."""
        own = [trainer.optimiser for trainer in trainers]
        return len(own) == len(self.optimisers) and all(map(operator.is_, own, self.optimisers))

    def gradients(self) -> list[Found]:
        """What `Trainer.gradient` finds, for each of them."""
        losses, rows = self._find(self.losses)
        return [(loss, [row[number] for row in rows]) for number, loss in enumerate(losses)]

    def _find(self, losses_of: Callable) -> tuple[torch.Tensor, Rows]:
        """Losses [S] of the present step and their gradients, [S, P] of matrices and of vectors."""
        first, batches = self.trainers[0], [trainer.batch() for trainer in self.trainers]
        windows = {name: np.stack([w[name] for w, _ in batches]) for name in batches[0][0]}
        batch = to_device((windows, np.stack([v for _, v in batches])), first.device)
        first.model.train()
        with sdpa_kernel(BATCHED):
            losses = losses_of(self.parameters, *batch)
        parameters = list(self.parameters.values())
        found = torch.autograd.grad(losses.sum(), parameters, materialize_grads=True)
        rows = first.optimiser.gather([part.flatten(1) for part in found])
        return losses.detach(), rows

    def _loss(self, parameters: dict, window: dict, valid: torch.Tensor) -> torch.Tensor:
        """Of one of them, [S] under vmap."""
        first = self.trainers[0]

        def forward(given: dict) -> torch.Tensor:
            return functional_call(first.model, parameters, (given,))

        return first.loss(forward, window, valid)
