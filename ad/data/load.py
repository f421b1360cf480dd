"""Read the histories of a run's train tasks."""

from collections.abc import Callable, Iterable
from operator import call
from pathlib import Path

import numpy as np

from ad.data.dataset import Dataset
from ad.data.episodes import returns_of
from ad.data.histories import Histories
from ad.data.sampler import TaskHistory
from ad.data.schema import transition_fields
from ad.data.spec import make_spec
from ad.data.store import History, describe_stopped, load_history
from ad.data.verified import VerifiedFiles
from ad.errors import ConfigError
from ad.runtime.console import warn
from ad.runtime.run import Run
from envs.tasks import task_name


def load_dataset(run: Run, broadcast: Callable = call) -> Dataset:
    """Read and verify the histories of the train tasks of `run`, up to where an agent failed.

    `broadcast(function, *args)` calls a function in the first of several processes, while the
    others wait: they then read only the files that it could not record as verified.

    Raises ConfigError if a history is missing, in several roots, or of other spaces than those of
    the world, CorruptError if a history is damaged.
    """
    histories = Histories(run.config)
    folders = {task_name(task): histories.folder(task) for task in run.split.train_tasks}
    if missing := sum(not folder.exists() for folder in folders.values()):
        raise ConfigError(f"{missing} train tasks have no history: run scripts.collect first")
    loaded = _load(folders, histories.paths, broadcast)
    fields = transition_fields(run.world)
    for name, history in loaded.items():
        if history.fields != fields:
            raise ConfigError(
                f"the history of task {name} has other fields than the world: collect it again"
            )
    if stopped := {n: h.stopped_at for n, h in loaded.items() if h.stopped_at is not None}:
        warn(f"{describe_stopped(stopped)}: training uses their histories up to there")
    learned = [history.learned for history in loaded.values()]
    rewards = np.unique(np.concatenate([np.unique(arrays["reward"]) for arrays in learned]))
    if not np.isfinite(rewards).all():
        raise ConfigError("the histories hold rewards that are not finite")
    returns = np.concatenate([returns_of(arrays) for arrays in learned])
    spec = make_spec(run.world, run.config.env.episode_length, rewards, returns)
    tasks = zip(learned, run.split.train_tasks, strict=True)
    return Dataset([TaskHistory(*both, run.world) for both in tasks], spec, run.config)


def _load(
    folders: dict[str, Path], datasets: Iterable[Path], broadcast: Callable
) -> dict[str, History]:
    """Return the verified histories in `folders` by task name, and record what was verified."""
    verified = {path: VerifiedFiles(path) for path in datasets}
    loaded: dict[str, History] = {}

    def load(name: str) -> None:
        folder = folders[name]
        loaded[name] = load_history(folder, check=verified[folder.parent].check)

    def save() -> None:
        for files in verified.values():
            files.save()

    try:
        for name in folders:  # one by one: the other processes wait for an answer a limited time
            broadcast(load, name)
        broadcast(save)
        for name in folders:
            if name not in loaded:
                load(name)
    finally:  # also when interrupted: reading a large dataset takes hours
        save()
    return loaded
