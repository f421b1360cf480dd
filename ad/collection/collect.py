"""Collect: run the source algorithm on every train task without a history, and store it all."""

import os

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from ad.collection.job import Batch, is_there, limit_threads, partials, unfinished
from ad.config.schema import Experiment
from ad.data.manifest import CURVE_START
from ad.data.schema import FIELDS
from ad.data.store import load_unit
from ad.runtime.arrays import most_maps
from ad.runtime.files import publish, remove, write_json
from ad.runtime.locks import locked
from ad.runtime.run import Run, dataset_folder, describe_split, task_name, unit_folder


def collect(run: Run, fresh: bool = False) -> int:
    """Store the missing histories of the train tasks (with `fresh`, all); how many there were.

    What an interrupted collection has left is gone on with, to the same bytes. Raises MachineError
    while another process collects into the same dataset.
    """
    config, split = run.config, run.split
    count = collect_tasks(config, split.train_tasks, fresh)
    name = f"split_{split.hash[:12]}.json"
    write_json(dataset_folder(config) / name, describe_split(split))
    return count


def collect_tasks(config: Experiment, tasks: np.ndarray, fresh: bool = False) -> int:
    """Likewise for any `tasks` [K, ...] of the world."""
    limit_threads(config)
    with locked(dataset_folder(config)):
        if fresh:
            _discard(config, tasks)
        missing = _missing(config, tasks)
        for batch in unfinished(config, missing):
            batch.collect()
        for part in _batches(config, _missing(config, missing)):
            Batch(config, part).collect()
    return len(missing)


def show_curves(run: Run) -> None:
    """Write each source agent's curve to tensorboard, from the histories, under `source/<task>`."""
    for task in run.split.train_tasks:
        folder = run.folder / "source" / task_name(task)
        if folder.exists():
            continue
        curve = load_unit(unit_folder(run.config, task), fields=()).curve
        # Aside, since a folder that a killed process began would count as done.
        temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        with SummaryWriter(str(temporary)) as writer:
            for column, values in curve.items():
                if column != CURVE_START[0]:
                    for step, value in zip(curve[CURVE_START[0]], values, strict=True):
                        writer.add_scalar(f"collect/{column}", value, int(step))
        publish(temporary, folder)


def _batches(config: Experiment, tasks: np.ndarray) -> list[np.ndarray]:
    """`tasks` in parts whose arrays can all be open; a history depends on no other in its batch."""
    most = max(most_maps() // len(FIELDS), 1)
    return np.array_split(tasks, range(most, len(tasks), most)) if len(tasks) else []


def _missing(config: Experiment, tasks: np.ndarray) -> np.ndarray:
    """Those of `tasks` [K, ...] that have no whole history."""
    return tasks[[not is_there(config, task) for task in tasks]]


def _discard(config: Experiment, tasks: np.ndarray) -> None:
    """Remove the histories of `tasks` and what an interruption left of them."""
    for task in tasks:
        remove(unit_folder(config, task))
    for partial, _ in partials(config, tasks):
        remove(partial)
