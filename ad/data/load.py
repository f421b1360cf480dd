"""Read the histories of a run's train tasks, and record which of their files were verified.

`verified.json` lies beside the histories, so that a training does not hash every file again. For
each file that agreed with its manifest it has the size, the times of the last change of content and
of status, the inode, and the entry of the manifest. The file is hashed again as soon as one of
these differs. Damage that changes none of them, as by a failing disk, is only detected by
`ad verify`, which always reads every byte.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable
from functools import cached_property
from operator import call
from pathlib import Path

import numpy as np

from ad.config.world import history_rate
from ad.data.dataset import TrainingSet, training_part
from ad.data.episodes import returns_of
from ad.data.histories import HistoryStore
from ad.data.manifest import check_file
from ad.data.sampler import TaskHistory
from ad.data.schema import transition_fields
from ad.data.spec import make_spec
from ad.data.store import History, describe_stopped, load_history
from ad.errors import ConfigError
from ad.runtime.console import warn
from ad.runtime.files import read_checked_json, write_checked_json
from ad.runtime.run import Run
from envs.tasks import task_name

VERIFIED = "verified.json"
CLOCK_TICK = 2 * 10**9  # nanoseconds: the coarsest times of file systems
SAVE_EVERY = 60  # seconds between two savings of the record while files are being read


def load_training_set(run: Run, broadcast: Callable = call) -> TrainingSet:
    """Read and verify the histories of the train tasks of `run`, up to where an agent failed.

    `broadcast(function, *args)` calls a function in the first of several processes, while the
    others wait: they then read only the files that it could not record as verified.

    Raises ConfigError if a history is missing or has other spaces than the world, CorruptError if a
    history is damaged.
    """
    histories = HistoryStore(run.config)
    folders = {task_name(task): histories.folder(task) for task in run.split.train_tasks}
    if missing := sum(not folder.exists() for folder in folders.values()):
        raise ConfigError(f"{missing} train tasks have no history: run `ad collect` first")
    loaded = _load(folders, histories.path, broadcast)
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
    if (every := history_rate(run.config)) >= 1:
        ends = [own["terminated"] | own["truncated"] for own in learned]
        if max(done[:, :-1].sum(1).max() for done in ends) < every:
            text = "no task changes in the histories: actors play fewer episodes than env.change"
            warn(f"{text} times data.history_stride ({every:g})")
    steps, names = training_part(run.config)[1], ("terminated", "truncated", "reward")
    returns = [returns_of({name: own[name][:, :steps] for name in names}) for own in learned]
    spec = make_spec(run.world, run.config.env.episode_length, rewards, returns)
    tasks = zip(learned, run.split.train_tasks, strict=True)
    return TrainingSet([TaskHistory(*both, run.world) for both in tasks], spec, run.config)


def _load(folders: dict[str, Path], dataset: Path, broadcast: Callable) -> dict[str, History]:
    """Return the verified histories in `folders` by task name, and record what was verified."""
    verified, loaded = VerifiedFiles(dataset), {}

    def load(name: str) -> None:
        loaded[name] = load_history(folders[name], check=verified.check)

    try:
        for name in folders:  # one by one: the other processes wait for an answer a limited time
            broadcast(load, name)
        broadcast(verified.save)
        for name in folders:
            if name not in loaded:
                load(name)
    finally:  # also when interrupted: reading a large dataset takes hours
        verified.save()
    return loaded


class VerifiedFiles:
    """The files in the folder of a dataset that were verified to be what was written.

    The record is read when the first file is checked, and saved from time to time.
    """

    def __init__(self, dataset: Path):
        self.path, self.last_save = dataset / VERIFIED, time.monotonic()
        self.unsaved: dict[str, str] = {}

    @cached_property
    def saved(self) -> dict[str, str]:
        """The states of the verified files by name; empty without a record or for a damaged one."""
        try:
            return read_checked_json(self.path)
        except (OSError, ValueError):
            return {}

    def check(self, path: Path, entry: dict) -> None:
        """Raise ValueError unless a file is what its entry says, as `check_file` does. OSError."""
        now, status = time.time_ns(), path.lstat()
        name, state = f"{path.parent.name}/{path.name}", _state(status, entry)
        if self.saved.get(name) == state:
            return
        check_file(path, entry)
        # A write within a tick of the clock after `now` could leave the times as they are.
        is_old = now - max(status.st_mtime_ns, status.st_ctime_ns) > CLOCK_TICK
        if is_old and _state(path.lstat(), entry) == state:
            self.unsaved[name] = state
        if time.monotonic() - self.last_save > SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Add the files that `check` read to the record, unless its folder cannot be written to."""
        self.last_save = time.monotonic()
        if self.unsaved:
            self.saved, self.unsaved = self.saved | self.unsaved, {}
            with contextlib.suppress(OSError):
                write_checked_json(self.path, self.saved)


def _state(status: os.stat_result, entry: dict) -> str:
    """Return what must not change for a file to stay verified."""
    times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
    return f"{status.st_size} {times} {status.st_ino} {json.dumps(entry, sort_keys=True)}"
