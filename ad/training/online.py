"""Training steps of an online method, whose learner takes them in the worlds of the train tasks."""

import torch

from ad.errors import NumericError
from ad.methods import build_method
from ad.rollout.tasks import policy_of
from ad.runtime.run import Run
from ad.training.nonfinite import NonFiniteGuard
from ad.training.trainer import Trainer, TrainingData


class OnlineTrainer(Trainer):
    """The learner of a run and the step it has reached: `step` steps are done.

    A step depends on the seed and its number only, so a run that resumes from a checkpoint trains
    to the same weights as an uninterrupted one. It runs on the CPU.
    """

    headline = "trial_return"

    def __init__(self, run: Run):
        """Resume from the newest checkpoint of `run`, or begin at step 0.

        Raises ConfigError if the checkpoint belongs to another configuration.
        """
        self.run, self.config, self.device = run, run.config, torch.device("cpu")
        self.method = build_method(self.config.method)
        self.learner = self.method.learner(self.config, run.split.train_tasks)
        self.model = self.forward = self.learner.model
        self.data = TrainingData(None, None, self.model.spec)
        self.guard = NonFiniteGuard(self.config.training.max_bad_batches)
        self.seconds, self.failure = 0.0, None
        policy_of(self.config, self.method, self.model)(1)  # its errors come before the training
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
        """Do nothing: the learner is the library's."""

    def train_step(self) -> None:
        """Let the learner take the present step; `sync_nonfinite` raises its NumericError."""
        try:
            metrics = self.learner.train_step(self.step)
        except NumericError as error:
            self.failure = error
            return
        self.metrics.append({name: torch.tensor(value) for name, value in metrics.items()})
        self.step += 1

    def sync_nonfinite(self) -> None:
        """Raise the NumericError of the last step, if it had one."""
        if self.failure is not None:
            raise self.failure

    def _optimizer_state(self) -> dict:
        return self.learner.state()

    def _load(self, content: dict | None) -> None:
        """Set model, learner and step to those of a checkpoint; None leaves them at the start."""
        self.step, self.metrics = 0, []
        if content is not None:
            self.step, self.metrics = content["step"], self._read_metrics(content)
            self.model.load_state_dict(content["model"])
            self.learner.load_state(content["optimizer"])
