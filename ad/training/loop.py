"""The training loop: train steps of a run, and what is due after each."""

from collections.abc import Callable

from ad.methods import build_method
from ad.runtime.run import Run
from ad.training.callbacks import Callbacks, Validate
from ad.training.data_parallel import ALONE, SingleProcess
from ad.training.learner import LearnerTrainer
from ad.training.trainer import BaseTrainer, Trainer


def never() -> bool:
    """Return False: the default `stop_requested`."""
    return False


def new_trainer(run: Run, processes: SingleProcess = ALONE) -> BaseTrainer:
    """Return the trainer of `run`, at the train step of its newest checkpoint."""
    learner = build_method(run.config.method).learner(run.config, run.split.train_tasks)
    return Trainer(run, processes=processes) if learner is None else LearnerTrainer(run, learner)


def train(
    trainer: BaseTrainer, validate: Validate, stop_requested: Callable[[], bool] = never
) -> None:
    """Train to the configured number of train steps, or until a stop is requested.

    `validate(trainer)` returns numbers for the log. `stop_requested` is called after each train
    step; where it returns True, a checkpoint is written and training ends early. Raises
    NumericError if training would have to roll back a second time.
    """
    if not trainer.train_steps_left:
        return
    callbacks = Callbacks(trainer, validate)
    with callbacks.session():
        while trainer.train_steps_left:
            with trainer.timed():
                trainer.train_step()
            callbacks.after_step()
            if stop_requested() and trainer.train_steps_left:
                callbacks.save()
                trainer.processes.barrier()  # torchrun stops all when one has ended
                return
