"""Train steps of a method that brings a learner of its own (`ad.methods.base.Learner`)."""

import torch

from ad.errors import NumericError
from ad.methods.base import Learner
from ad.runtime.devices import choose_device
from ad.runtime.run import Run
from ad.training.trainer import BaseTrainer


class LearnerTrainer(BaseTrainer):
    """The learner of a run and how far it is: `step` train steps are done.

    A train step depends on the seed and its number only, so a run that resumes from a checkpoint
    trains to the same weights as an uninterrupted one. It runs on the CPU.
    """

    headline = "trial_return"

    def __init__(self, run: Run, learner: Learner):
        """Resume from the newest checkpoint of `run`, or begin at train step 0.

        Raises ConfigError if the checkpoint belongs to another configuration.
        """
        choose_device(run.config)  # and set the threads
        super().__init__(run, torch.device("cpu"))
        self.learner, self.model, self.failure = learner, learner.model, None
        self._resume()

    @property
    def transitions_per_train_step(self) -> int:
        """The number of transitions of a train step, in all environments."""
        return self.method.transitions(self.config) // self.train_steps

    @property
    def learning_rate(self) -> float:
        """The learning rate of the last train step."""
        return self.learner.learning_rate

    def compile(self) -> None:
        """Do nothing: the learner steps its model itself."""

    def train_step(self) -> None:
        """Take the present train step by the learner.

        A NumericError of the learner is kept, and `sync_nonfinite` raises it.
        """
        try:
            metrics = self.learner.train_step(self.step)
        except NumericError as error:
            self.failure = error
            return
        self.metrics.append({name: torch.tensor(value) for name, value in metrics.items()})
        self.step += 1

    def sync_nonfinite(self) -> None:
        """Raise the NumericError of the last train step, if it had one."""
        if self.failure is not None:
            raise self.failure

    def _optimizer_state(self) -> dict:
        return self.learner.state()

    def _load_optimizer(self, state: dict) -> None:
        self.learner.load_state(state)
