"""Several training seeds of one configuration in one process, side by side.

On a GPU a step of a small model takes about the time in which a CPU asks for its operations. So the
parameters of all models lie stacked there, and one forward and backward pass (`torch.vmap`) asks
for those of all. A CPU is busy with one model alone: there the trainers take turns. So they do
where a step draws random numbers on the device, which are then a seed's own; and a trainer that is
behind, since it was interrupted earlier or rolled back, goes on alone until it has caught up.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from torch.func import functional_call

from ad.compiling import compiled
from ad.config import Experiment
from ad.errors import NumericError
from ad.gradients import Found
from ad.notices import complain
from ad.optimiser import Rows
from ad.runs import Run
from ad.training import Trainer, never


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
    with ExitStack() as sessions:
        for number, trainer in enumerate(trainers):
            sessions.enter_context(trainer.session(len(trainers), stacked, number == 0))
        take_steps = new_round(stacked)
        left = [trainer for trainer in trainers if trainer.left]
        while left:
            first = min(trainer.step for trainer in left)
            now = [trainer for trainer in left if trainer.step == first]
            take_steps(now)
            for trainer in now:
                try:
                    trainer.after_step()
                except NumericError as error:
                    failed[trainer.config.name] = error
            left = [t for t in left if t.left and t.config.name not in failed]
            if asked_to_stop():
                for trainer in left:
                    trainer.save()
                break
    _raise(failed, len(trainers))


def _raise(failed: dict[str, NumericError], count: int) -> None:
    """The error of the only trainer, or one for those of several, which are said here."""
    if count == 1:
        for error in failed.values():
            raise error
    for name, error in failed.items():
        complain(f"{name}: {error}")
    if failed:
        raise NumericError(f"{len(failed)} of {count} trainings failed: {', '.join(failed)}")


def _in_turns(trainers: Sequence[Trainer]) -> None:
    for trainer in trainers:
        trainer.train_step()


def new_round(stacked: bool) -> Callable[[Sequence[Trainer]], None]:
    """What takes a step of each of some trainers, which are all at the same one."""
    return _Stacks().step if stacked else _in_turns


def stacking_pays(trainers: Sequence[Trainer]) -> bool:
    """Whether one pass for all of them takes less time than one for each, to the same numbers."""
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

    def step(self, trainers: Sequence[Trainer]) -> None:
        """Take the present step of all `trainers`."""
        if len(trainers) == 1:
            return trainers[0].train_step()
        if self.stack is None or not self.stack.holds(trainers):
            self.stack = _Stack(trainers)
        for trainer, found in zip(trainers, self.stack.gradients(), strict=True):
            trainer.update(*found)


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
        self.parameters = {}  # in the order of the optimisers'
        for place, group in zip(places, first.optimiser.groups, strict=True):
            parts = place.split([p.numel() for p in group], dim=1)
            for p, part in zip(group, parts, strict=True):
                own = part.view(len(trainers), *p.shape).detach()
                self.parameters[names[id(p)]] = own.requires_grad_()
        self.losses = torch.vmap(self._loss)
        if first.config.training.compile:
            self.losses = compiled(self.losses, self._find)

    def holds(self, trainers: Sequence[Trainer]) -> bool:
        """Whether it is of these, and of their present optimisers."""
        own = [trainer.optimiser for trainer in trainers]
        return len(own) == len(self.optimisers) and all(map(_same, own, self.optimisers))

    def gradients(self) -> list[Found]:
        """What `Trainer.gradient` finds, for each of them."""
        losses, rows = self._find(self.losses)
        return [(loss, [row[number] for row in rows]) for number, loss in enumerate(losses)]

    def _find(self, losses_of: Callable) -> tuple[torch.Tensor, Rows]:
        """Losses [S] of the present step and their gradients, [S, P] of matrices and of vectors."""
        batches = [trainer.batch() for trainer in self.trainers]
        windows = {name: torch.stack([w[name] for w, _ in batches]) for name in batches[0][0]}
        valid = torch.stack([v for _, v in batches])
        self.trainers[0].model.train()
        losses = losses_of(self.parameters, windows, valid)
        parameters = list(self.parameters.values())
        left = list(torch.autograd.grad(losses.sum(), parameters, materialize_grads=True))
        rows = []
        for group in self.optimisers[0].groups:
            mine, left = left[: len(group)], left[len(group) :]
            rows.append(torch.cat([part.flatten(1) for part in mine], dim=1))
        return losses.detach(), rows

    def _loss(self, parameters: dict, window: dict, valid: torch.Tensor) -> torch.Tensor:
        """Of one of them, [S] under vmap."""
        first = self.trainers[0]

        def forward(given: dict) -> torch.Tensor:
            return functional_call(first.model, parameters, (given,))

        return first.loss(forward, window, valid)


def _same(one: object, other: object) -> bool:
    return one is other
