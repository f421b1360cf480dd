"""The training loop: steps of one or several trainers, and what is due after each.

The trainers differ in their seeds. One that is behind the others, since it was interrupted earlier
or rolled back, trains alone until it has caught up.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from ad.errors import NumericError
from ad.methods import build_method
from ad.runtime import console
from ad.runtime.run import Run
from ad.training.callbacks import Callbacks, Validate
from ad.training.data_parallel import ALONE, OneProcess
from ad.training.learner import LearnerTrainer
from ad.training.multi_seed import stacking_is_faster, step_function
from ad.training.trainer import BaseTrainer, Trainer


def never() -> bool:
    """Return False: the default `stop_requested`."""
    return False


def new_trainers(runs: Sequence[Run], processes: OneProcess = ALONE) -> list[BaseTrainer]:
    """Return a trainer for each of `runs`, which differ in their seeds and share the data.

    Several `processes` train one run.
    """
    learners = [
        build_method(run.config.method).learner(run.config, run.split.train_tasks) for run in runs
    ]
    if None not in learners:
        return [LearnerTrainer(*both) for both in zip(runs, learners, strict=True)]
    first, *others = runs
    shared = Trainer(first, processes=processes)
    return [shared, *(Trainer(run, shared.data) for run in others)]


def train_seeds(
    trainers: Sequence[BaseTrainer],
    validate: Validate,
    stop_requested: Callable[[], bool] = never,
    stacked: bool | None = None,
) -> None:
    """Train all `trainers` to the configured number of steps, each from the step it has reached.

    `validate(trainer)` returns numbers for the log. With `stacked` all share one pass, else they
    take turns; None chooses the faster way. `stop_requested` is asked after every round; if it is
    true, checkpoints are written and this returns. A trainer that fails does not stop the others:
    NumericError is raised at the end.
    """
    if stacked is None:
        stacked = stacking_is_faster(trainers)
    left = [Callbacks(trainer, validate) for trainer in trainers if trainer.train_steps_left]
    behind = min(left, key=lambda callbacks: callbacks.trainer.step, default=None)
    with ExitStack() as sessions:
        for callbacks in left:  # the progress bar of one that is behind covers the steps of all
            sessions.enter_context(callbacks.session(len(left), stacked, callbacks is behind))
        failed = _train(left, step_function(stacked), stop_requested, len(trainers) > 1)
    if failed and len(trainers) == 1:
        raise failed.popitem()[1]
    if failed:
        names = ", ".join(failed)
        raise NumericError(f"{len(failed)} of {len(trainers)} trainings failed: {names}")


def _train(
    left: Sequence[Callbacks],
    take_steps: Callable[[Sequence[BaseTrainer]], None],
    stop_requested: Callable[[], bool],
    several: bool,
) -> dict[str, NumericError]:
    """Train in rounds until no steps are left and return the errors by run; none after a stop.

    A round is one step of the trainers that are furthest behind. With `several`, errors are printed
    at once.
    """
    failed: dict[str, NumericError] = {}
    while left:
        step = min(callbacks.trainer.step for callbacks in left)
        now = [callbacks for callbacks in left if callbacks.trainer.step == step]
        take_steps([callbacks.trainer for callbacks in now])
        for callbacks in now:
            try:
                callbacks.after_step()
            except NumericError as error:
                failed[callbacks.config.name] = error
                if several:
                    console.error(f"{callbacks.config.name}: {error}")
        left = [c for c in left if c.trainer.train_steps_left and c.config.name not in failed]
        if stop_requested():
            for callbacks in left:
                callbacks.save()
                callbacks.trainer.processes.barrier()  # torchrun stops all when one has ended
            return {}  # a training that failed will fail again when it resumes
    return failed
