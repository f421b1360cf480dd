"""Verify: hold what is on the disk against what was written there; repair what can be made again.

Every byte is read: of the histories that a configuration needs and of all others in its dataset,
and of its run's checkpoints and results.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from ad.collection.collect import collect_tasks
from ad.collection.job import other_history
from ad.config.schema import Experiment
from ad.data.store import load_unit
from ad.errors import CorruptError
from ad.evaluation import summary
from ad.runtime.files import remove
from ad.runtime.run import config_split, dataset_folder, unit_folder
from ad.training import checkpoints

Damage = dict[Path, str]  # what is wrong with the unit or file at a path
UNIT = re.compile(r"task_(\d+(?:-\d+)*)_seed_(\d+)")


def histories(config: Experiment) -> dict[Path, tuple[Experiment, np.ndarray]]:
    """The train tasks' histories and all others that are there: folder -> (row, task) of each.

    One dataset has those of all splits and source seeds.
    """
    found = {unit_folder(config, task): (config, task) for task in config_split(config).train_tasks}
    for path in sorted(dataset_folder(config).glob("task_*_seed_*")):
        if match := UNIT.fullmatch(path.name):
            task = np.array([int(part) for part in match[1].split("-")])
            row = replace(config, source=replace(config.source, source_seed=int(match[2])))
            found.setdefault(path, (row, task))
    return found


def run_checkpoints(config: Experiment) -> list[Path]:
    """All checkpoints of the run, the oldest first."""
    return sorted((config.folder / "checkpoints").glob("step_*.pt"))


def run_results(config: Experiment) -> list[Path]:
    """The files of the run's evaluations, also in other worlds, that are there."""
    folder = config.folder
    folders = [folder, *sorted((folder / "worlds").glob("*/"))]
    return [path for f in folders for name in summary.FILES if (path := f / name).exists()]


def damaged_histories(config: Experiment) -> Damage:
    """The histories that are missing, damaged or of something else."""
    checked = {path: _history_damage(path, *made) for path, made in histories(config).items()}
    return {path: reason for path, reason in checked.items() if reason}


def damaged_checkpoints(config: Experiment) -> Damage:
    """The checkpoints of the run that are not what was written."""
    found = {}
    for path in run_checkpoints(config):
        try:
            checkpoints.load(path)
        except CorruptError as error:
            found[path] = str(error)
    return found


def damaged_results(config: Experiment) -> Damage:
    """The files of the run's evaluations that are not what was written."""
    found = {}
    for folder in dict.fromkeys(path.parent for path in run_results(config)):
        found |= summary.damaged_results(folder)
    return found


def repair_histories(config: Experiment, damaged: Damage) -> None:
    """Collect them again, with the same bytes; one of a task that no such world has only goes."""
    made = {path: histories(config)[path] for path in damaged}
    tasks_of_world = {tuple(task) for task in config_split(config).all_tasks.tolist()}
    for path in damaged:
        remove(path)
    rows = {row.source.source_seed: row for row, _ in made.values()}
    for seed, row in rows.items():
        tasks = [task for other, task in made.values() if other.source.source_seed == seed]
        if known := [task for task in tasks if tuple(task.tolist()) in tasks_of_world]:
            collect_tasks(row, np.array(known))


def remove_checkpoints(damaged: Damage) -> None:
    """Remove them: training goes on from the newest one that is left."""
    for path in damaged:
        remove(path)
        remove(path.with_suffix(".json"))


def remove_results(config: Experiment, damaged: Damage) -> None:
    """Remove all files of an evaluation of which some are `damaged`: it makes them again."""
    folders = {path.parent for path in damaged}
    for path in run_results(config):
        if path.parent in folders:
            remove(path)


def _history_damage(folder: Path, config: Experiment, task: np.ndarray) -> str:
    """What is wrong with the history of `task`; empty if nothing is."""
    if not folder.exists():
        return f"the history {folder} is missing"
    try:
        manifest = load_unit(folder).manifest
    except CorruptError as error:
        return str(error)
    different = other_history(manifest, config, task)
    return different and f"the history {folder} is another one, by its {different}"
