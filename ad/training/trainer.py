"""Training: AdamW on windows of histories, periodic evaluation, checkpoints, exact resume.

Batches, dropout and evaluations are derived from (train_seed, purpose, step), so a run that goes on
from a checkpoint sees what an uninterrupted one would have seen.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from tqdm import tqdm

from ad.config.schema import dump
from ad.data.dataset import (
    TrainingData,
    load_dataset,
    mask_past_actions,
    to_device,
    with_masked_actions,
)
from ad.data.spec import spec_as_dict
from ad.errors import NumericError
from ad.methods import build_method
from ad.models.sequence_model import SequenceModel, build_model, choose_backend
from ad.models.tokenizer import Window
from ad.runtime.console import warn
from ad.runtime.devices import choose_device, seed_torch
from ad.runtime.run import Run
from ad.training import checkpoints
from ad.training import validation as progress
from ad.training.compiling import compiled
from ad.training.nonfinite import NonFiniteGuard
from ad.training.optimizer import (
    FlatAdamW,
    FlatTensors,
    LossAndGrad,
    learning_rate,
    loss_and_grad,
)
from ad.training.precision import autocast, uses_bfloat16
from ad.training.provenance import check_fingerprint, fingerprint, hardware, log_session
from envs.rng import derive_key

SYNC_EVERY = 16  # steps between reads of a GPU's flags of bad batches: a read waits for it


class Trainer:
    """One training run: the model, its optimizer, and the step it has reached."""

    def __init__(self, run: Run, data: TrainingData | None = None):
        """`data`: that of another trainer of the same histories; None reads them."""
        self.run, self.config = run, run.config
        self.device = choose_device(self.config)
        self.method = build_method(self.config.method)
        self.data = data or load_dataset(run, self.method.history_part)
        self.model = self.new_model()
        self.forward = self.model
        self.bfloat16 = uses_bfloat16(self.config, self.device)
        self.guard = NonFiniteGuard(self.config.training.max_bad_batches)
        self.spent = 0.0  # seconds of training that timing.json does not know yet
        self._resume()

    @property
    def left(self) -> int:
        """How many steps are to be made."""
        return self.config.training.steps - self.step

    @contextmanager
    def session(self, count: int, stacked: bool, shown: bool) -> Iterator[None]:
        """Around training's steps: one of `count` trainers side by side, `stacked` or in turns.

        The progress bar of one of them is `shown`.
        """
        present = hardware(self.config, self.device)
        log_session(self.run.folder, self.step, present | {"models": count if stacked else 1})
        if self.config.training.compile and self.device.type != "cuda":
            warn("training.compile is for GPUs: on a CPU training continues without it")
        elif self.config.training.compile and not stacked:
            self.compile()
        self._speed_since = time.perf_counter(), self.step
        with self._bar(f"train {count} seeds" if count > 1 else "train", shown) as self.bar:
            yield

    @contextmanager
    def working(self) -> Iterator[None]:
        """Around work whose seconds are this run's."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.spent += time.perf_counter() - begin

    def compile(self) -> None:
        """Go on with a compiled model, where that works."""
        self.forward = compiled(self.model, self._attempt)

    def train_step(self) -> None:
        """One optimizer step on the batch of the present step, without what is due after it."""
        if not self.model.training:  # after an evaluation
            self.model.train()
        with self.model.transformer.training_context(self.bfloat16):
            self.update(*self.loss_and_grad(self.forward))

    def update(self, loss: torch.Tensor, gradient: FlatTensors) -> None:
        """Take an optimizer step with the `gradient` of the present step; go to the next one."""
        rate = learning_rate(self.step, self.config.training)
        bad = self.optimizer.update(gradient, loss, rate)
        self.losses.append(torch.where(bad, torch.nan, loss))
        self.pending_nonfinite.append((self.step, bad))
        self.step += 1

    def loss_and_grad(self, forward: Callable) -> LossAndGrad:
        """The loss on the batch of the present step, detached, and its gradient."""
        window, valid = to_device(self.batch(), self.device)

        def loss_of(part: slice) -> torch.Tensor:
            mine = {name: values[part] for name, values in window.items()}
            seed_torch(self._key("dropout", self.step, part.start), self.device)
            return self.loss(forward, mine, valid[part]) * (valid[part].sum() / valid.sum())

        transformer = self.model.transformer
        length = self.model.layout.count(self.config.data.context_length)
        each = transformer.micro_batches(len(valid), length, self.bfloat16)
        return loss_and_grad(self.optimizer, loss_of, each)

    def batch(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The windows of the present step and their valid decisions, in the CPU's memory."""
        settings, data = self.config.training, self.config.data
        rng = np.random.default_rng(self._key("batch", self.step))
        batch = self.data.train.sample(rng, settings.batch_size, data.windows_from_start)
        if settings.action_dropout:
            batch = mask_past_actions(batch, rng, settings.action_dropout)
        return batch

    def loss(self, forward: Callable, window: Window, valid: torch.Tensor) -> torch.Tensor:
        """Of windows with the model `forward`, 0-d."""
        settings = self.config.training
        if settings.action_dropout:
            forward = with_masked_actions(forward, self.data.spec.padding_index["action"])
        with autocast(self.config, self.device):
            return self.method.loss(forward, window, valid, settings.label_smoothing)

    def _attempt(self, forward: Callable) -> None:
        """Forward and backward of one batch, to see whether `forward` works; nothing is kept."""
        self.model.train()
        self.loss_and_grad(forward)

    def after_step(self) -> None:
        """What is due after a step: a look at bad batches, the log, an evaluation, a checkpoint."""
        settings = self.config.training
        log, evaluation, checkpoint = (
            self.step % every == 0 or self.step == settings.steps
            for every in (settings.log_every, settings.eval_every, settings.checkpoint_every)
        )
        if self.device.type == "cpu" or self.step % SYNC_EVERY == 0 or log or checkpoint:
            self._sync_nonfinite()
        if self.guard.too_many:
            return self._roll_back(self.guard.reason())
        if log:
            self._log()
        if evaluation:
            try:
                self.model.eval()
                self.run.log.write(self.step, progress.seen(self))
            except NumericError:
                return self._roll_back(f"the model's logits are not finite after step {self.step}")
        if checkpoint:
            self.save()
        self.bar.update(self.step - self.bar.n)

    def _sync_nonfinite(self) -> None:
        """Count the bad batches since the last call; waits for the device."""
        if self.pending_nonfinite:
            steps, flags = zip(*self.pending_nonfinite, strict=True)
            for step, bad in zip(steps, torch.stack(flags).tolist(), strict=True):
                self.guard.count(step, bad)
            self.pending_nonfinite = []

    def _roll_back(self, reason: str) -> None:
        """Go back to the last checkpoint, and on with other batches. Once: then NumericError."""
        step = self.step
        self.guard.roll_back(reason)
        self._restore(checkpoints.load_newest(self.run.folder / "checkpoints"))
        self.run.log.truncate_after(self.step)
        warn(f"{reason}: training rolls back from step {step} to {self.step}, to other batches")

    def _log(self) -> None:
        now, (since, start) = time.perf_counter(), self._speed_since
        per_step = self.config.training.batch_size * self.config.data.context_length
        speed = max(self.step - start, 0) / (now - since) * per_step
        loss = float(torch.stack(self.losses).nanmean())
        values = {
            "train/loss": loss,
            "train/learning_rate": learning_rate(self.step - 1, self.config.training),
            "train/transitions_per_second": speed,
        }
        self.run.log.write(self.step, values | self.guard.metrics())
        self.bar.set_postfix_str(f"loss {loss:.3f}, {speed / 1e3:.0f} k transitions/s")
        self.losses = []

    def save(self) -> None:
        """Write a checkpoint, unless the run is in trouble that a roll-back would have to undo."""
        with self.working():
            self._sync_nonfinite()
            if self.left and (self.guard.consecutive or not _is_finite(self.model)):
                return
            self.run.log.sync()
            checkpoints.save(self.run.folder / "checkpoints", self.step, self._content())
        self.run.add_timing("train_s", self.spent)
        self.spent = 0.0

    def _content(self) -> dict:
        """What a checkpoint holds; weights without the memory that other seeds share."""
        return {
            "model": {name: value.clone() for name, value in self.model.state_dict().items()},
            "optimizer": self.optimizer.state_dict(),
            "losses": [float(loss) for loss in self.losses],
            "nonfinite": self.guard.state_dict(),
            "spec": spec_as_dict(self.data.spec),
            "config": dump(self.config),
            "fingerprint": fingerprint(self.config, self.run.split),
            "backend": choose_backend(self.config, self.device),
        }

    def _resume(self) -> None:
        """Take up the newest checkpoint, or begin."""
        content = checkpoints.load_newest(self.run.folder / "checkpoints")
        if content is not None:
            check_fingerprint(content, self.config, self.run.split)
            self.guard.load_state_dict(content["nonfinite"])
        self._restore(content)
        self.run.log.truncate_after(self.step)

    def _restore(self, content: dict | None) -> None:
        """Weights, optimizer and step of a checkpoint; of the beginning, if there is none."""
        self.optimizer = FlatAdamW(self.model, self.config.training)
        self.losses, self.pending_nonfinite = [], []
        if content is None:
            self.step = 0
            self.model.load_state_dict(self.new_model().state_dict())
            return
        self.step = content["step"]
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.losses = [torch.tensor(loss, device=self.device) for loss in content["losses"]]

    def new_model(self) -> SequenceModel:
        """The model as it is before the first step."""
        torch.manual_seed(derive_key(self._seed, "train", "weights"))
        return build_model(self.data.spec, self.config, self.device)

    def _bar(self, title: str, shown: bool) -> tqdm:
        total, off = self.config.training.steps, None if shown else True
        return tqdm(total=total, initial=self.step, desc=title, unit=" steps", disable=off)

    @property
    def _seed(self) -> int:
        return self.config.training.train_seed

    def _key(self, purpose: str, *where: int) -> int:
        """The key of randomness at a step: another one after a roll-back, not to fail again."""
        roll_backs = len(self.guard.roll_backs)
        again = [f"roll-back {roll_backs}"] if roll_backs else []
        return derive_key(self._seed, "train", purpose, *where, *again)


def _is_finite(model: torch.nn.Module) -> bool:
    return all(bool(torch.isfinite(p).all()) for p in model.parameters())
