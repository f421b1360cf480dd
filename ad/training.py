"""Training: AdamW on windows of histories, periodic evaluation, checkpoints, exact resume.

Batches, dropout and evaluations are derived from (train_seed, purpose, step), so a run that goes on
from a checkpoint sees what an uninterrupted one would have seen.
"""

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from ad import checkpoints
from ad.config import Experiment, config_hash, dump
from ad.devices import autocast, choose_device
from ad.errors import ConfigError, NumericError
from ad.evaluation import play
from ad.histories import load_unit
from ad.methods import new_method
from ad.model import SequenceModel, spec_as_dict
from ad.runs import Run, unit_folders
from ad.tokens import Spec
from ad.windows import HistoryWindows
from envs import world
from envs.rng import derive_key

HELD_OUT_WINDOWS = 256  # windows of held-out streams over which the held-out loss is a mean
MAX_REWARDS = 64  # distinct reward values that a table may have


@dataclass
class TrainingData:
    """Windows to train on, those of held-out streams of the same tasks (or None), and sizes."""

    train: HistoryWindows
    held_out: HistoryWindows | None
    spec: Spec


def load_data(config: Experiment, history_part: tuple[float, float]) -> TrainingData:
    """Read and verify the histories of all train tasks. Raises ConfigError if one is missing."""
    folders = [folder for _, folder in unit_folders(config)]
    if missing := sum(not folder.exists() for folder in folders):
        raise ConfigError(f"{missing} train tasks have no history: run scripts.collect first")
    histories = [load_unit(folder).arrays for folder in folders]
    rewards = np.unique(np.concatenate([np.unique(history["reward"]) for history in histories]))
    if len(rewards) > MAX_REWARDS:
        raise ConfigError(
            f"the histories hold {len(rewards)} different rewards, a table {MAX_REWARDS}"
        )
    spec = make_spec(config, rewards)
    split = config.source.num_envs - config.data.held_out_streams

    def windows(streams: slice) -> HistoryWindows:
        return HistoryWindows(
            ({name: array[streams] for name, array in history.items()} for history in histories),
            config.data.context_length,
            config.data.history_stride,
            rewards,
            spec.none,
            history_part,
        )

    held_out = windows(slice(split, None)) if config.data.held_out_streams else None
    return TrainingData(windows(slice(split)), held_out, spec)


def make_spec(config: Experiment, rewards: np.ndarray) -> Spec:
    """The sizes of the configured world, and the reward values that its histories hold."""
    env = config.env
    knowledge = world(env.id, env.tasks, **env.kwargs)
    return Spec(
        num_observations=int(knowledge.single_observation_space.n),
        observation_factors=tuple(int(f) for f in knowledge.observation_factors),
        num_actions=int(knowledge.single_action_space.n),
        rewards=tuple(float(r) for r in rewards),
        episode_length=env.episode_length,
    )


class Trainer:
    """One training run: the model, its optimiser, and the step it has reached."""

    def __init__(self, run: Run):
        self.run, self.config = run, run.config
        self.device = choose_device(self.config)
        self.method = new_method(self.config.method)
        self.data = load_data(self.config, self.method.history_part)
        torch.manual_seed(self._key("weights"))
        self.model = SequenceModel(self.data.spec, self.config.model).to(self.device)
        self.optimiser = new_optimiser(self.model, self.config, self.device)
        self.step = 0
        self._resume()
        self.forward = torch.compile(self.model) if self.config.training.compile else self.model

    def train(self) -> None:
        """Train to the configured number of steps, from wherever the last checkpoint left off."""
        settings = self.config.training
        start, losses, began = self.step, [], time.perf_counter()
        with self._bar() as bar:
            while self.step < settings.steps:
                losses.append(self._train_step())
                self.step += 1
                bar.update(1)
                if self.step % settings.log_every == 0 or self.step == settings.steps:
                    speed = (self.step - start) / (time.perf_counter() - began)
                    self._log(losses, speed, bar)
                    losses = []
                if self.step % settings.eval_every == 0 or self.step == settings.steps:
                    self._evaluate()
                if self.step % settings.checkpoint_every == 0 or self.step == settings.steps:
                    self._save()

    def _train_step(self) -> torch.Tensor:
        settings, data = self.config.training, self.config.data
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, settings)
        torch.manual_seed(self._key("dropout", self.step))
        rng = np.random.default_rng(self._key("batch", self.step))
        batch = self.data.train.sample(rng, settings.batch_size, data.windows_from_start)
        window, valid = to_device(batch, self.device)
        self.model.train()
        with autocast(self.config, self.device):
            loss = self.method.loss(self.forward, window, valid, settings.label_smoothing)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.gradient_norm)
        self.optimiser.step()
        return loss.detach()

    def _log(self, losses: list[torch.Tensor], speed: float, bar: tqdm) -> None:
        settings = self.config.training
        loss = float(torch.stack(losses).mean())
        if not math.isfinite(loss):
            raise NumericError(f"the loss is {loss} near step {self.step} of training")
        per_step = settings.batch_size * self.config.data.context_length
        values = {
            "train/loss": loss,
            "train/learning_rate": learning_rate(self.step - 1, settings),
            "train/transitions_per_second": speed * per_step,
        }
        self.run.log(self.step, values)
        bar.set_postfix_str(f"loss {loss:.3f}, {speed * per_step / 1e3:.0f} k transitions/s")

    def _evaluate(self) -> None:
        self.model.eval()
        values = {}
        if self.data.held_out is not None:
            values["train/held_out_stream_loss"] = self._held_out_loss()
        episodes = min(self.config.training.eval_episodes, self.config.evaluation.episodes)
        results = play(self.config, self.run.split, self.model, self.method, episodes, (1, 1))
        for part, result in results.items():
            last = slice(-min(10, episodes), None)
            values[f"evaluate/{part}/return"] = result.returns.mean()
            values[f"evaluate/{part}/return_last10"] = result.returns[:, last].mean()
            values[f"evaluate/{part}/success_last10"] = result.successes[:, last].mean()
        self.run.log(self.step, values)

    @torch.inference_mode()
    def _held_out_loss(self) -> float:
        rng = np.random.default_rng(self._key("held_out_windows"))
        size = self.config.training.batch_size
        losses = []
        for _ in range(math.ceil(HELD_OUT_WINDOWS / size)):
            window, valid = to_device(self.data.held_out.sample(rng, size), self.device)
            with autocast(self.config, self.device):
                losses.append(float(self.method.loss(self.model, window, valid)))
        return float(np.mean(losses))

    def _save(self) -> None:
        content = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "spec": spec_as_dict(self.data.spec),
            "config": dump(self.config),
            "training_hash": training_hash(self.config),
            "split_hash": self.run.split.hash,
        }
        checkpoints.save(self.run.folder / "checkpoints", self.step, content)

    def _resume(self) -> None:
        content = checkpoints.load_newest(self.run.folder / "checkpoints", self.device)
        if content is None:
            self.run.forget_after(0)
            return
        if content["split_hash"] != self.run.split.hash:
            raise ConfigError(f"{self.run.folder} holds a training on another split")
        self.model.load_state_dict(content["model"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.step = content["step"]
        self.run.forget_after(self.step)

    def _bar(self) -> tqdm:
        total = self.config.training.steps
        return tqdm(total=total, initial=self.step, desc="train", unit=" steps", disable=None)

    def _key(self, *purpose: int | str) -> int:
        return derive_key(self.config.training.train_seed, "train", *purpose)


def new_optimiser(model: torch.nn.Module, config: Experiment, device: torch.device):
    """AdamW (Loshchilov and Hutter 2019); biases, norms and embeddings of one row do not decay."""
    settings = config.training
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    betas = (settings.beta1, settings.beta2)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=betas, fused=True)


def learning_rate(step: int, settings) -> float:
    """Linear warm-up over `warmup_steps`, then half a cosine down to `final_learning_rate`."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    share = (step - settings.warmup_steps) / max(settings.steps - 1 - settings.warmup_steps, 1)
    height = 0.5 * (1 + math.cos(math.pi * share))
    low, high = settings.final_learning_rate, settings.learning_rate
    return low + (high - low) * height


def training_hash(config: Experiment) -> str:
    """Hash of every section that a checkpoint depends on."""
    c = config
    return config_hash(c.env, c.split, c.source, c.data, c.model, c.method, c.training)


def to_device(batch, device: torch.device):
    """A sampled (window, valid) pair as tensors on `device`."""
    window, valid = batch
    moved = {name: torch.from_numpy(array).to(device) for name, array in window.items()}
    return moved, torch.from_numpy(valid).to(device)
