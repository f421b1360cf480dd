"""Trainers: the model of a run, and train steps from the state that a checkpoint holds.

Batches and dropout are derived from (train_seed, purpose, train step), so a run that resumes from a
checkpoint trains to the same weights as an uninterrupted one on the same machine and versions.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from ad.config.schema import dump
from ad.data.dataset import to_device
from ad.data.load import load_training_set
from ad.data.sampler import Batch, Windows
from ad.data.spec import MAX_REWARDS, Spec
from ad.methods import build_method, build_model
from ad.methods.base import Method
from ad.methods.losses import loss_mask
from ad.models.sequence_model import SequenceModel
from ad.rollout.tasks import policy_of
from ad.runtime.console import warn
from ad.runtime.devices import choose_device, seed_torch
from ad.runtime.parallel import split_evenly
from ad.runtime.run import Run
from ad.training import checkpoints
from ad.training.data_parallel import ALONE, SingleProcess
from ad.training.nonfinite import MAX_BAD_BATCHES, NonFiniteGuard
from ad.training.optimizer import FlatAdamW, FlatTensors, Metrics, learning_rate, loss_and_grad
from ad.training.precision import uses_bfloat16
from ad.training.provenance import check_fingerprint, fingerprint
from envs.rng import derive_key

LARGEST_ACTIVATION = 10**7  # elements of the largest activation of a micro-batch on a CPU


class BaseTrainer(ABC):
    """The model of a run, its checkpoints, and how far it is: `step` train steps are done.

    A subclass sets `model` when it is made, and then calls `_resume`.
    """

    headline = "loss"  # the number of the log that the progress bar shows
    held_out: Windows | None = None  # the sampler of held-out actors, None without them
    model: SequenceModel

    def __init__(self, run: Run, device: torch.device, processes: SingleProcess = ALONE):
        self.run, self.config, self.device = run, run.config, device
        self.processes = processes
        self.method = build_method(self.config.method)
        self.guard = NonFiniteGuard(MAX_BAD_BATCHES)
        self.seconds = 0.0  # of training that are not in the run's timing yet

    @property
    def train_steps_left(self) -> int:
        """The number of train steps that are still to be taken."""
        return self.train_steps - self.step

    @property
    def train_steps(self) -> int:
        """The number of train steps of the whole training."""
        return self.method.train_steps(self.config)

    @property
    @abstractmethod
    def transitions_per_train_step(self) -> int:
        """The number of transitions that a train step learns from."""

    @property
    @abstractmethod
    def learning_rate(self) -> float:
        """The learning rate of the last train step."""

    @contextmanager
    def timed(self) -> Generator[None]:
        """Add the time that the block takes to `seconds`."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - begin

    @abstractmethod
    def compile(self) -> None:
        """Train with a compiled model from now on, if there is one and it compiles."""

    @abstractmethod
    def train_step(self) -> None:
        """Take the present train step."""

    @abstractmethod
    def sync_nonfinite(self) -> None:
        """Count in `guard` the train steps since the last call with a non-finite loss or gradient.

        A trainer that cannot roll back raises the NumericError of such a step instead.
        """

    def is_finite(self) -> bool:
        """Return whether all weights are finite."""
        return all(bool(torch.isfinite(p).all()) for p in self.model.parameters())

    def save(self) -> None:
        """Write a checkpoint of the present train step."""
        self.processes.on_first(self._save)

    def restore(self) -> None:
        """Return to the newest checkpoint, or to the start if there is none."""
        self._load(self._newest())

    def _save(self) -> None:
        content = {
            "model": {name: value.clone() for name, value in self.model.state_dict().items()},
            "optimizer": self._optimizer_state(),
            "metrics": [
                {name: float(value) for name, value in metrics.items()} for metrics in self.metrics
            ],
            "nonfinite": self.guard.state_dict(),
            "spec": asdict(self.model.spec),
            "config": dump(self.config),
            "fingerprint": fingerprint(self.config, self.run.split),
        }
        keep_every = self.config.training.keep_every
        checkpoints.save(self._checkpoints, self.step, content, keep_every)

    def _newest(self) -> dict | None:
        """Return the newest readable checkpoint, None if there is none."""
        return self.processes.broadcast(checkpoints.load_newest, self._checkpoints)

    @property
    def _checkpoints(self) -> Path:
        return self.run.folder / "checkpoints"

    def _resume(self) -> None:
        """Load the newest checkpoint with its count of bad batches, or start."""
        policy_of(self.config, self.method, self.model)(1)  # its errors come before the training
        content = self._newest()
        if content is not None:
            check_fingerprint(content, self.config, self.run.split)
            self.guard.load_state_dict(content["nonfinite"])
        self._load(content)

    def _load(self, content: dict | None) -> None:
        """Set model, optimizer and train step to those of a checkpoint, or of the start for None.

        A subclass sets what it has at the start first.
        """
        self.step = 0
        self.metrics: list[Metrics] = []  # of the train steps since the last entry of the log
        if content is None:
            return
        self.step = content["step"]
        self.metrics = [
            {name: torch.tensor(value, device=self.device) for name, value in metrics.items()}
            for metrics in content["metrics"]
        ]
        checkpoints.load_weights(self.model, content)
        self._load_optimizer(content["optimizer"])

    @abstractmethod
    def _optimizer_state(self) -> dict:
        """Return the state of the optimizer, or of the learner, between two train steps."""

    @abstractmethod
    def _load_optimizer(self, state: dict) -> None:
        """Set the state to one returned by `_optimizer_state`."""


@dataclass(frozen=True)
class TrainingData:
    """Samplers of training batches and of those of held-out actors, and the spec.

    `held_out` is None without held-out actors.
    """

    train: Windows
    held_out: Windows | None
    spec: Spec


def load_training_data(run: Run, method: Method, processes: SingleProcess = ALONE) -> TrainingData:
    """Read the histories of the train tasks of `run` and return the samplers of `method`.

    The first of several `processes` verifies the histories.
    """
    dataset = load_training_set(run, processes.broadcast)
    if run.config.model.reward == "table" and not dataset.spec.rewards:
        warn(
            f"the histories have more than {MAX_REWARDS} different rewards: the model reads them "
            "through a linear map in place of a table"
        )
    held_out = None
    if run.config.data.held_out_actors:
        held_out = method.sampler(dataset, held_out=True)
    return TrainingData(method.sampler(dataset), held_out, dataset.spec)


class Trainer(BaseTrainer):
    """The sequence model of a run, its optimizer and how far it is."""

    def __init__(
        self, run: Run, data: TrainingData | None = None, processes: SingleProcess = ALONE
    ):
        """Resume from the newest checkpoint of `run`, or begin at train step 0.

        `data` may be that of another trainer on the same histories; None reads them. `processes`
        train the model together. Raises ConfigError if the checkpoint belongs to another
        configuration.
        """
        super().__init__(run, choose_device(run.config), processes)
        self.data = data or load_training_data(run, self.method, processes)
        self.held_out = self.data.held_out
        self.model = self.forward = self.new_model()
        self.bfloat16 = uses_bfloat16(self.config, self.device)
        self._resume()

    @property
    def transitions_per_train_step(self) -> int:
        """The number of transitions that a train step learns from."""
        return self.config.training.batch_size * self.config.data.context_length

    @property
    def learning_rate(self) -> float:
        """The learning rate of the last train step."""
        return learning_rate(self.step - 1, self.config.training)

    def compile(self) -> None:
        """Train with a compiled model from now on, if it compiles: that needs a C++ compiler."""
        forward = torch.compile(self.model)
        try:  # forward and backward of one batch
            self.model.train()
            self.loss_and_grad(forward)
        except Exception as error:  # compilers fail in many ways, each with an exception of its own
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            warn(f"torch.compile does not work here ({reason}); training runs without it, slower")
        else:
            self.forward = forward

    def train_step(self) -> None:
        """Take one optimizer step on the batch of the present train step."""
        if not self.model.training:  # after a validation
            self.model.train()
        self.update(*self.processes.all_reduce(*self.loss_and_grad(self.forward)))

    def update(self, metrics: Metrics, gradient: FlatTensors) -> None:
        """Take an optimizer step with the `gradient` of the present train step; go to the next one.

        `metrics` are the loss and the method's own metrics.
        """
        rate = learning_rate(self.step, self.config.training)
        nonfinite = self.optimizer.update(gradient, metrics["loss"], rate)
        self.metrics.append(
            {name: torch.where(nonfinite, torch.nan, value) for name, value in metrics.items()}
        )
        self.pending_nonfinite.append((self.step, nonfinite))
        with torch.no_grad():
            self.method.after_step(self.model, metrics)
        self.step += 1

    def loss_and_grad(self, forward: Callable) -> tuple[Metrics, FlatTensors]:
        """Return the loss and the metrics of the model `forward` on the present train step's batch.

        The second value is the gradient of the loss. They are the share of this process: those of
        the batch are the sums over all processes.
        """
        whole, metrics = self.batch(), []
        rows = self.processes.batch_slice(len(whole["valid"]))
        batch = to_device({name: values[rows] for name, values in whole.items()}, self.device)
        mask = loss_mask(batch)
        decisions = torch.tensor(loss_mask(whole).sum(), device=self.device)

        def loss_of(micro_batch: slice) -> torch.Tensor:
            own = {name: values[micro_batch] for name, values in batch.items()}
            first = rows.start + micro_batch.start
            seed_torch(self._key("dropout", self.step, first), self.device)
            share = mask[micro_batch].sum() / decisions
            loss, further = self.loss(forward, own)
            metrics.append({name: value.detach() * share for name, value in further.items()})
            return loss * share

        micro_batches = self.micro_batches(len(mask))
        loss, gradient = loss_and_grad(self.optimizer, loss_of, micro_batches)
        further = {name: sum(each[name] for each in metrics) for name in metrics[0]}
        return {**further, "loss": loss}, gradient

    def micro_batches(self, num_windows: int) -> list[slice]:
        """Return the slices of a batch of `num_windows` windows that train one after the other.

        There are `training.micro_batches` of them, on a CPU more if an activation would have more
        than `LARGEST_ACTIVATION` elements: a CPU is slower on tensors that its allocator maps anew
        each time, and a laptop's memory is small.
        """
        count, model = self.config.training.micro_batches, self.model
        if self.device.type == "cpu":
            length = model.tokenizer.num_tokens(self.config.data.context_length)
            most = max(LARGEST_ACTIVATION // model.memory.largest_activation(length), 1)
            count = max(count, -(-num_windows // most))
        bounds = split_evenly(num_windows, min(count, num_windows))
        return [slice(*bound) for bound in bounds]

    def batch(self) -> Batch:
        """Return the batch of the present train step."""
        rng = np.random.default_rng(self._key("batch", self.step))
        return self.data.train.sample(rng, self.config.training.rows)

    def loss(self, forward: Callable, batch: dict[str, torch.Tensor]) -> tuple:
        """Return the loss of the model `forward` on a batch, 0-d, and the method's metrics."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            return self.method.loss(forward, batch)

    def sync_nonfinite(self) -> None:
        """Count the train steps since the last call with a non-finite loss or gradient in `guard`.

        Waits for the device.
        """
        if self.pending_nonfinite:
            steps, flags = zip(*self.pending_nonfinite, strict=True)
            for step, bad in zip(steps, torch.stack(flags).tolist(), strict=True):
                self.guard.count(step, bad)
            self.pending_nonfinite = []

    def new_model(self) -> SequenceModel:
        """Return the model as it is before the first train step."""
        torch.manual_seed(derive_key(self._seed, "train", "weights"))
        model = build_model(self.method, self.data.spec, self.config, self.device)
        recomputes = self.config.training.activation_checkpointing
        model.memory.activation_checkpointing = recomputes
        return model

    def _optimizer_state(self) -> dict:
        return self.optimizer.state_dict()

    def _load(self, content: dict | None) -> None:
        self.optimizer = FlatAdamW(self.model, self.config.training)
        self.pending_nonfinite = []
        if content is None:
            self.model.load_state_dict(self.new_model().state_dict())
        super()._load(content)

    def _load_optimizer(self, state: dict) -> None:
        self.optimizer.load_state_dict(state)

    @property
    def _seed(self) -> int:
        return self.config.training.train_seed

    def _key(self, purpose: str, *where: int) -> int:
        """Return the random key of a purpose at a train step; a roll-back changes it."""
        roll_backs = len(self.guard.roll_backs)
        again = [f"roll-back {roll_backs}"] if roll_backs else []
        return derive_key(self._seed, "train", purpose, *where, *again)
