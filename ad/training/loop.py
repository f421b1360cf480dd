"""The training loop: train steps of a run, and its log, validation, checkpoint and roll-back."""

import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

import torch
from tqdm import tqdm

from ad.errors import NumericError
from ad.methods import build_method
from ad.runtime.console import warn
from ad.runtime.devices import choose_device
from ad.runtime.run import Run
from ad.training.data_parallel import ALONE, SingleProcess
from ad.training.learner import LearnerTrainer
from ad.training.provenance import hardware, log_session
from ad.training.trainer import BaseTrainer, Trainer, load_training_data

SYNC_EVERY = 16  # steps after which the non-finite flags are read from a GPU, which waits for it

Validate = Callable[[BaseTrainer], dict[str, float]]  # returns metrics for the log, by tag


def never() -> bool:
    """Return False: the default `stop_requested`."""
    return False


def new_trainer(run: Run, processes: SingleProcess = ALONE, fresh: bool = False) -> BaseTrainer:
    """Return the trainer of `run`, at the train step of its newest checkpoint.

    With `fresh` it begins at train step 0, and the old training is discarded once the histories are
    read: their errors leave it as it is.
    """
    choose_device(run.config)  # raises an error before anything is discarded
    method = build_method(run.config.method)
    learner = method.learner(run.config, run.split.train_tasks)
    data = load_training_data(run, method, processes) if learner is None else None
    if fresh:
        processes.broadcast(run.discard_training)
    return Trainer(run, data, processes) if learner is None else LearnerTrainer(run, learner)


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


class Callbacks:
    """Logs, validates, saves and rolls back a trainer when its configuration says so.

    `validate` returns the numbers of a validation by tag. It raises NumericError if the model's
    logits are not finite.
    """

    def __init__(self, trainer: BaseTrainer, validate: Validate):
        self.trainer, self.validate, self.log = trainer, validate, trainer.run.log
        self.config, self.settings = trainer.config, trainer.config.training
        self.log.truncate_after(trainer.step)

    @contextmanager
    def session(self) -> Generator[None]:
        """Record the hardware and show the progress bar while the block trains."""
        trainer, processes = self.trainer, self.trainer.processes
        present = hardware(self.config, trainer.device) | {"processes": processes.size}
        processes.on_first(log_session, trainer.run.folder, trainer.step, present)
        if self.settings.compile and trainer.device.type != "cuda":
            warn("training.compile is for GPUs: on a CPU training continues without it")
        elif self.settings.compile:
            trainer.compile()
        if trainer.step == 0 and self._is_kept():
            self.save()
        if trainer.device.type == "cpu" and not self.config.threads:
            _warn_of_busy_cores()
        self._speed_since = time.perf_counter(), trainer.step
        with tqdm(
            total=trainer.train_steps,
            initial=trainer.step,
            desc="train",
            unit=" steps",
            disable=None if processes.rank == 0 else True,  # None: where stderr is no terminal
        ) as self.bar:
            yield

    def after_step(self) -> None:
        """Do what is due after a step. Raises NumericError at a second roll-back."""
        trainer = self.trainer
        log, validation, checkpoint = (
            trainer.step % every == 0 or not trainer.train_steps_left
            for every in (
                self.settings.log_every,
                self.settings.eval_every,
                self.settings.checkpoint_every,
            )
        )
        checkpoint |= self._is_kept()
        if trainer.device.type == "cpu" or trainer.step % SYNC_EVERY == 0 or log or checkpoint:
            trainer.sync_nonfinite()
        if trainer.guard.too_many:
            return self._roll_back(trainer.guard.reason())
        if log:
            self._log()
        if validation:
            try:
                self.log.write(trainer.step, trainer.processes.broadcast(self.validate, trainer))
            except NumericError:
                return self._roll_back(
                    f"the model's logits are not finite after step {trainer.step}"
                )
        if checkpoint:
            self.save()
        self.bar.update(trainer.step - self.bar.n)

    def save(self) -> None:
        """Write a checkpoint and add the seconds of training to the run's timing.

        Nothing is written amid bad batches or with weights that are not finite: training would
        have to roll back from such a checkpoint. The last one is written in any case.
        """
        trainer = self.trainer
        with trainer.timed():
            trainer.sync_nonfinite()
            if trainer.train_steps_left and (trainer.guard.consecutive or not trainer.is_finite()):
                return
            self.log.sync()
            trainer.save()
        trainer.run.add_timing("train_s", trainer.seconds)
        trainer.seconds = 0.0

    def _is_kept(self) -> bool:
        """Return whether the checkpoint of the present step is one to keep."""
        every = self.settings.keep_every
        return bool(every) and self.trainer.step % every == 0

    def _roll_back(self, reason: str) -> None:
        """Return to the newest checkpoint; from there the batches are other ones."""
        trainer, step = self.trainer, self.trainer.step
        trainer.guard.roll_back(reason)
        trainer.restore()
        self.log.truncate_after(trainer.step)
        warn(f"{reason}: training rolls back from step {step} to {trainer.step}, to other batches")

    def _log(self) -> None:
        trainer, now, (since, start) = self.trainer, time.perf_counter(), self._speed_since
        speed = max(trainer.step - start, 0) / (now - since) * trainer.transitions_per_train_step
        metrics = {
            f"train/{name}": float(torch.stack([step[name] for step in trainer.metrics]).nanmean())
            for name in trainer.metrics[0]
        }
        values = {
            **metrics,
            "train/learning_rate": trainer.learning_rate,
            "train/transitions_per_second": speed,
        }
        self.log.write(trainer.step, values | trainer.guard.metrics())
        shown = trainer.headline
        self.bar.set_postfix_str(
            f"{shown.replace('_', ' ')} {values[f'train/{shown}']:.3f}, "
            f"{speed / 1e3:.0f} k transitions/s"
        )
        trainer.metrics = []


def _warn_of_busy_cores() -> None:
    """Warn where the threads of a train step would wait for those of other processes."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > 1.5 * cores and torch.get_num_threads() > 1:
        warn(
            f"{load:.0f} processes want the {cores} cores of this machine, on which threads wait "
            "for each other: --threads 1 may be many times faster"
        )
