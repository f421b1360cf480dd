"""Training data: the verified histories of the train tasks, as windows and tensors."""

from collections.abc import Callable, Mapping
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
    """Windows to train on, windows of held-out actors of the same tasks (or None), and sizes."""

    train: WindowSampler
    held_out: WindowSampler | None
    spec: Spec


def load_dataset(run: Run, history_part: tuple[float, float]) -> TrainingData:
    """Read and verify the histories of the train tasks of `run`.

    `history_part` is the fraction (start, stop) of each actor's transitions to train on. Raises
    ConfigError if a history is missing or the rewards do not fit a table, CorruptError if a history
    is damaged.
    """
    histories = _load_histories(run)
    rewards = np.unique(np.concatenate([np.unique(history["reward"]) for history in histories]))
    if len(rewards) > MAX_REWARDS:
        raise ConfigError(
            f"the histories hold {len(rewards)} different rewards, a table {MAX_REWARDS}"
        )
    spec = make_spec(run.world, run.config.env.episode_length, rewards)
    data, num_envs = run.config.data, run.config.source.num_envs
    steps = (data.env_steps or run.config.source.env_steps) // num_envs  # transitions of an actor

    def sampler(actors: slice) -> WindowSampler:
        return WindowSampler(
            ({name: array[actors, :steps] for name, array in h.items()} for h in histories),
            data.context_length,
            data.history_stride,
            rewards,
            spec.padding_index,
            history_part,
        )

    first_held_out = num_envs - data.held_out_actors
    train = sampler(slice(data.actors_per_task or first_held_out))
    held_out = sampler(slice(first_held_out, None)) if data.held_out_actors else None
    return TrainingData(train, held_out, spec)


def _load_histories(run: Run) -> list[Mapping[str, np.ndarray]]:
    """Return the arrays [actors, T] of each train task, up to the step where its agent failed."""
    histories = Histories(run.config)
    folders = {task_name(task): histories.folder(task) for task in run.split.train_tasks}
    if missing := sum(not folder.exists() for folder in folders.values()):
        raise ConfigError(f"{missing} train tasks have no history: run scripts.collect first")
    loaded = {name: load_history(folder) for name, folder in folders.items()}
    if stopped := {n: h.stopped_at for n, h in loaded.items() if h.stopped_at is not None}:
        warn(f"{describe_stopped(stopped)}: training uses their histories up to there")
    return [history.learned for history in loaded.values()]


def to_device(
    batch: tuple[dict[str, np.ndarray], np.ndarray], device: torch.device
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Return a sampled (window, valid) pair as tensors on `device`."""
    window, valid = batch
    tensors = {name: torch.from_numpy(array).to(device) for name, array in window.items()}
    return tensors, torch.from_numpy(valid).to(device)


def mask_past_actions(batch, rng: np.random.Generator, probability: float):
    """Add the field `masked`, which hides each action with `probability` from the model.

    The loss still reads the action.
    """
    window, valid = batch
    return window | {"masked": rng.random(window["action"].shape) < probability}, valid


def with_masked_actions(forward: Callable, padding_index: int) -> Callable:
    """Return `forward` for windows with the field `masked`; it reads masked actions as padding."""

    def masked_forward(window: dict[str, torch.Tensor]) -> torch.Tensor:
        shown = dict(window)
        masked = shown.pop("masked")
        return forward(shown | {"action": window["action"].masked_fill(masked, padding_index)})

    return masked_forward
