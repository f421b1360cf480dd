"""Collection: run the source algorithm on every train task that has no history, and store it."""

import os

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from ad.collection.job import CollectionJob, resumable_folders, resumable_jobs
from ad.data.histories import HistoryStore
from ad.data.manifest import CURVE_START
from ad.data.store import load_history
from ad.runtime.arrays import max_open_maps
from ad.runtime.console import info, warn
from ad.runtime.files import atomic_rename_dir, remove, write_json
from ad.runtime.locks import locked
from ad.runtime.parallel import limit_threads
from ad.runtime.run import Run, describe_split
from envs.tasks import Split, task_name


def collect(run: Run, fresh: bool = False, wait: bool = False) -> int:
    """Collect the missing histories of the train tasks, with `fresh` all; returns their number.

    Missing histories of other experiments that the source reads are collected first; `fresh` keeps
    them. An interrupted collection is resumed, and gives the same bytes. Raises LockedError while
    another process collects into the same dataset; with `wait`, waits for its end.
    """
    histories, split, length = HistoryStore(run.config), run.split, run.config.env.episode_length
    if (limit := run.world.max_episode_steps) and length < limit:
        warn(
            f"env.episode_length {length} ends episodes that {run.config.env.id} lets last for "
            f"{limit} steps"
        )
    return collect_tasks(histories, split.train_tasks, fresh, wait, split)


def collect_tasks(
    histories: HistoryStore,
    tasks: np.ndarray,
    fresh: bool = False,
    wait: bool = False,
    split: Split | None = None,
) -> int:
    """Collect the missing histories of `tasks` [K, ...] as `collect` does; returns their number.

    With `wait`, waits for another process that collects into the same dataset. The `split` that the
    tasks are of is described beside the histories.
    """
    # No lock is held meanwhile, so two processes never wait for each other.
    for needed in histories.needed:
        if collected := collect_tasks(needed, tasks, wait=True):
            info(f"collect: {collected} histories that the source reads, in {needed.path}")
    limit_threads(histories.config.threads or torch.get_num_threads())
    with locked(histories.path, wait):
        if fresh:
            for task in tasks:
                remove(histories.folder(task))
            for partial, _ in resumable_folders(histories, tasks):  # of interrupted collections
                remove(partial)
        missing = histories.missing(tasks)
        for job in resumable_jobs(histories, missing):
            job.collect()
        for tasks_of_job in _split_tasks(histories, histories.missing(missing)):
            CollectionJob(histories, tasks_of_job).collect()
        if split is not None:  # under the lock, whose next holder removes unfinished files
            path = histories.path / f"split_{split.hash[:12]}.json"
            write_json(path, describe_split(split))
    return len(missing)


def write_source_curves(run: Run) -> None:
    """Write the learning curve of each source agent for tensorboard, under `source/<task>/`."""
    histories = HistoryStore(run.config)
    for task in run.split.train_tasks:
        folder = run.folder / "source" / task_name(task)
        if folder.exists():
            continue
        curve = load_history(histories.folder(task), fields=()).curve
        # Renamed when complete: the folder of a killed process must not count as done.
        temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        with SummaryWriter(str(temporary)) as writer:
            for column, values in curve.items():
                if column != CURVE_START[0]:
                    for step, value in zip(curve[CURVE_START[0]], values, strict=True):
                        writer.add_scalar(f"collect/{column}", value, int(step))
        atomic_rename_dir(temporary, folder)


def _split_tasks(histories: HistoryStore, tasks: np.ndarray) -> list[np.ndarray]:
    """Split `tasks` so that the arrays of each job can be open at once.

    A history does not depend on the other histories of its job.
    """
    if len(tasks) == 0:
        return []
    most = max(max_open_maps() // len(histories.fields), 1)
    return np.array_split(tasks, range(most, len(tasks), most))
