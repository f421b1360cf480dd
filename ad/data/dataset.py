"""What training reads: the histories of the train tasks, verified, as windows and tensors."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ad.data.histories import Histories
from ad.data.sampler import WindowSampler
from ad.data.spec import Spec, make_spec
from ad.data.store import describe_stopped, load_history
from ad.errors import ConfigError
from ad.runtime.console import warn
from ad.runtime.run import Run
from envs.tasks import task_name

MAX_REWARDS = 64  # distinct reward values that a table may have


@dataclass
class TrainingData:
    """Windows to train on, those of held-out streams of the same tasks (or None), and sizes."""

    train: WindowSampler
    held_out: WindowSampler | None
    spec: Spec


def load_dataset(run: Run, history_part: tuple[float, float]) -> TrainingData:
    """Read and verify the histories of all train tasks. Raises ConfigError if one is missing."""
    config, histories = run.config, Histories(run.config)
    folders = {task_name(task): histories.folder(task) for task in run.split.train_tasks}
    if missing := sum(not folder.exists() for folder in folders.values()):
        raise ConfigError(f"{missing} train tasks have no history: run scripts.collect first")
    units = {name: load_history(folder) for name, folder in folders.items()}
    if stopped := {n: u.stopped_at for n, u in units.items() if u.stopped_at is not None}:
        warn(f"{describe_stopped(stopped)}: training sees their histories up to there")
    learned = [unit.learned for unit in units.values()]
    rewards = np.unique(np.concatenate([np.unique(history["reward"]) for history in learned]))
    if len(rewards) > MAX_REWARDS:
        raise ConfigError(
            f"the histories hold {len(rewards)} different rewards, a table {MAX_REWARDS}"
        )
    spec, data = make_spec(run.world, config.env.episode_length, rewards), config.data
    split = config.source.num_envs - data.held_out_actors
    steps = (data.env_steps or config.source.env_steps) // config.source.num_envs  # of a stream

    def windows(streams: slice) -> WindowSampler:
        return WindowSampler(
            ({n: array[streams, :steps] for n, array in h.items()} for h in learned),
            data.context_length,
            data.history_stride,
            rewards,
            spec.padding_index,
            history_part,
        )

    held_out = windows(slice(split, None)) if data.held_out_actors else None
    return TrainingData(windows(slice(data.actors_per_task or split)), held_out, spec)


def to_device(batch, device: torch.device):
    """A sampled (window, valid) pair as tensors on `device`."""
    window, valid = batch
    moved = {name: torch.from_numpy(array).to(device) for name, array in window.items()}
    return moved, torch.from_numpy(valid).to(device)


def mask_past_actions(batch, rng: np.random.Generator, share: float):
    """Mark a random `share` of a batch's actions as `masked`: for the model, not for the loss."""
    window, valid = batch
    return window | {"masked": rng.random(window["action"].shape) < share}, valid


def with_masked_actions(forward: Callable, padding_index: int) -> Callable:
    """Return `forward` for windows with masked actions, which it reads as `padding_index`."""

    def masked_forward(window: dict[str, torch.Tensor]) -> torch.Tensor:
        shown = dict(window)
        masked = shown.pop("masked")
        return forward(shown | {"action": window["action"].masked_fill(masked, padding_index)})

    return masked_forward
